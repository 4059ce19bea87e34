"""Terms of referrals: reminders before, overdue after, escalation."""
