# Postgres in RDS, where the host's own is not enough: backups to the minute, a standby, more than one server.
locals {
  rds = var.database == "rds" ? 1 : 0
}

# Made anew in each run, and written once: no plan and no state holds it.
ephemeral "aws_secretsmanager_random_password" "database" {
  count = local.rds

  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "database" {
  count = local.rds

  name                    = "lablink-database-${var.environment}"
  description             = "The password of LabLink's RDS instance (${var.environment})"
  recovery_window_in_days = 0
}

resource "aws_secretsmanager_secret_version" "database" {
  count = local.rds

  secret_id                = aws_secretsmanager_secret.database[0].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.database[0].random_password
  secret_string_wo_version = 1
}

# Read back rather than taken from above: a run that broke off between the two must not leave two passwords.
ephemeral "aws_secretsmanager_secret_version" "database" {
  count = local.rds

  secret_id = aws_secretsmanager_secret_version.database[0].secret_id
}

resource "aws_db_instance" "server" {
  count = local.rds

  identifier                 = local.name
  engine                     = "postgres"
  engine_version             = "17"
  instance_class             = var.database_class
  allocated_storage          = var.database_gb
  storage_type               = "gp3"
  storage_encrypted          = true
  db_name                    = "lablink"
  username                   = "lablink"
  password_wo                = ephemeral.aws_secretsmanager_secret_version.database[0].secret_string
  password_wo_version        = 1
  publicly_accessible        = false
  multi_az                   = var.environment == "prod"
  backup_retention_period    = 7
  auto_minor_version_upgrade = true
  copy_tags_to_snapshot      = true
  db_subnet_group_name       = aws_db_subnet_group.server[0].name
  vpc_security_group_ids     = [aws_security_group.database[0].id]
  skip_final_snapshot        = var.environment != "prod"
  final_snapshot_identifier  = var.environment == "prod" ? "${local.name}-final" : null
}

resource "aws_db_subnet_group" "server" {
  count = local.rds

  name       = local.name
  subnet_ids = data.aws_subnets.all.ids
}

resource "aws_security_group" "database" {
  count = local.rds

  name        = "lablink-database-${var.environment}"
  description = "LabLink database (${var.environment}): the server alone"
  vpc_id      = data.aws_vpc.server.id

  ingress = [{
    description      = "The server"
    protocol         = "tcp"
    from_port        = 5432
    to_port          = 5432
    cidr_blocks      = []
    ipv6_cidr_blocks = []
    prefix_list_ids  = []
    security_groups  = [aws_security_group.server.id]
    self             = false
  }]
  egress = []
}
