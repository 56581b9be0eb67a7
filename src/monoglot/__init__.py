"""monoglot: one small model that speaks one language about pictures, video, sound and text."""
