"""Foreign standards at the door: each package translates one of them into the words of the domain, and back."""
