# What the host is given: at its first boot the files that never change (user_data, no secret among them), and then one
# parameter that says what to run, which it follows within two minutes of an apply.
locals {
  user_data = templatefile("${path.module}/host/cloud-init.yaml.tftpl", {
    compose = base64gzip(file("${path.module}/host/compose.yaml"))
    caddy   = base64gzip(file("${path.module}/host/Caddyfile"))
    script  = base64gzip(file("${path.module}/host/lablink-host"))
    configuration = base64gzip(templatefile("${path.module}/host/host.env.tftpl", {
      region    = var.region
      domain    = var.domain
      parameter = local.parameter
      secret    = local.name
      bucket    = local.bucket
      database  = "lablink-database-${var.environment}"
    }))
  })
  parameter = "/lablink/${var.environment}/run"
  settings = merge({
    "aws.region"               = var.region
    "aws.environment"          = var.environment
    "aws.owner"                = var.owner
    "aws.permissions_boundary" = local.pool_bounds
    # Machines of provider local would be processes of the server's own container.
    "pool.default.provider"  = "aws"
    "server.host"            = "127.0.0.1"
    "server.public_url"      = "https://${var.domain}"
    "server.trusted_proxies" = "127.0.0.1"
    "log.format"             = "json"
  }, var.state_bucket == null ? {} : { "aws.state_bucket" = var.state_bucket })
}

resource "aws_ssm_parameter" "run" {
  name        = local.parameter
  description = "What the LabLink server's host runs (${var.environment})"
  type        = "String"
  value = jsonencode({
    image         = "${var.image}:${var.image_tag}"
    database_host = local.rds == 1 ? aws_db_instance.server[0].address : ""
    settings      = merge(local.settings, var.settings)
  })
}
