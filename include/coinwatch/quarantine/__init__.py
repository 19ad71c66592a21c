"""Values that are not stored as prices: screening, and the decisions of rules and operators."""
