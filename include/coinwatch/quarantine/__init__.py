"""Values that are not believed: screening, and what operators decide about them."""
