"""The networks that pictures and videos are measured with: I3D, Inception, LPIPS, and transformers of other libraries."""
