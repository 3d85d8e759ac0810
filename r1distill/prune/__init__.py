"""Making a student of a larger model: layers, feed-forward channels and attention heads are taken out before it is taught."""
