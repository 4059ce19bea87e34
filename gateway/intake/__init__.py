"""Takes in what others hold: counter-referrals polled from recipients' systems, and registers of persons."""
