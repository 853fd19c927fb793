"""Networks: what they are made of beside their backbones, how they follow and are followed."""
