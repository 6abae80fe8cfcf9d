"""From raw scans and lists to what training reads. No torch in here."""
