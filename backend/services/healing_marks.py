"""Marks on a VM (in its ``facts``) that say how it may be mended."""

from __future__ import annotations

# Nothing but another machine helps: it is destroyed and replaced, and never offered again.
REPLACE_ONLY = "replace_only"
# The id of the claim whose seat moved on without this machine: what is on it is that person's, and stays until they
# say that they need nothing of it, their seat ends, or an admin decides.
KEPT_FOR = "kept_for"
