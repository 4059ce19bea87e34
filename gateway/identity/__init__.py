"""Who calls: client systems, their public keys, our signing keys and the tokens between them."""
