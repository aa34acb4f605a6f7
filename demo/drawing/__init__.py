"""What the renderers of all worlds draw with: surfaces along parallel rays, colours, light."""
