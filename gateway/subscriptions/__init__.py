"""Who is told of events, and how: signed webhooks, or pulled and confirmed."""
