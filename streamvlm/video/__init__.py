"""URI → Frame → Clip: everything of one stream that must happen in order."""
