# Nightly backups, and the keys without which they cannot be read. `lablink deploy destroy` leaves both unless it is
# told otherwise, and the next apply takes them in again.
locals {
  bucket = "lablink-backup-${local.account}-${var.region}-${var.environment}"
}

import {
  for_each = toset(var.kept_bucket == null ? [] : [var.kept_bucket])
  to       = aws_s3_bucket.backup
  id       = each.key
}

resource "aws_s3_bucket" "backup" {
  bucket = local.bucket
}

resource "aws_s3_bucket_public_access_block" "backup" {
  bucket = aws_s3_bucket.backup.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "backup" {
  bucket = aws_s3_bucket.backup.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "backup" {
  bucket = aws_s3_bucket.backup.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "backup" {
  bucket     = aws_s3_bucket.backup.id
  depends_on = [aws_s3_bucket_versioning.backup]

  rule {
    id     = "expire"
    status = "Enabled"

    filter {}
    expiration {
      days = var.backup_days
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

data "aws_iam_policy_document" "backup" {
  statement {
    sid       = "EncryptedConnectionsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["${local.arn}:s3:::${local.bucket}", "${local.arn}:s3:::${local.bucket}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "backup" {
  bucket     = aws_s3_bucket.backup.id
  policy     = data.aws_iam_policy_document.backup.json
  depends_on = [aws_s3_bucket_public_access_block.backup]
}

import {
  for_each = toset(var.kept_secret_arn == null ? [] : [var.kept_secret_arn])
  to       = aws_secretsmanager_secret.server
  id       = each.key
}

# Its value is made by the host at its first start (host/lablink-host), so that no plan and no state holds it.
resource "aws_secretsmanager_secret" "server" {
  name                    = local.name
  description             = "LabLink's keys and first passwords (${var.environment})"
  recovery_window_in_days = 0
}
