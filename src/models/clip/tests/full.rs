//! RN50 and ViT-B/32 of full size.
