"""The bytes: the folder, its shards, a record's encoding, and how records get there."""
