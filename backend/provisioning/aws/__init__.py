"""AWS beside Terraform: what is asked of it and what is done to it by its own interfaces."""
