output "url" {
  description = "Where people go."
  value       = "https://${var.domain}"
}

output "address" {
  description = "What the domain's A record must hold."
  value       = aws_eip.server.public_ip
}

output "instance_id" {
  description = "The host: aws ssm start-session --target …"
  value       = aws_instance.server.id
}

output "secret" {
  description = "The secret that holds the first admin's password."
  value       = aws_secretsmanager_secret.server.name
}

output "backup_bucket" {
  description = "Where the nightly backups go."
  value       = aws_s3_bucket.backup.id
}
