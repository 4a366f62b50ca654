"""How old records become coarse: tiers, the plan, keeping to caps."""
