# The bucket is made by `lablink deploy bootstrap test`: versioned, encrypted, private.
key          = "allocator/terraform.tfstate"
encrypt      = true
use_lockfile = true
