# `test` and `prod` keep their state in S3 (backend-test.hcl, backend-prod.hcl, and the bucket and the region, which
# hold the account's number). `lablink deploy` keeps that of `dev` in its own data directory instead.
terraform {
  backend "s3" {}
}
