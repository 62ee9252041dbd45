variable "region" {
  description = "The region of the pool."
  type        = string
}

variable "attempts" {
  description = "How often AWS is asked where it throttles, fails, or has no room."
  type        = number
}

variable "environment" {
  description = "The environment, part of every name: three of them live side by side in one account."
  type        = string

  validation {
    condition     = contains(["dev", "test", "prod"], var.environment)
    error_message = "The environment is dev, test or prod."
  }
}

variable "server" {
  description = "The address of the server that these VMs belong to."
  type        = string
}

variable "owner" {
  description = "Who answers for these VMs; a tag."
  type        = string
}

variable "pool" {
  description = "The pool's name."
  type        = string
}

variable "cost" {
  description = "What these VMs are booked on; a tag."
  type        = string
}

variable "permissions_boundary" {
  description = "The policy that bounds the pool's role; none if null."
  type        = string
  nullable    = true
}

variable "vms" {
  description = "The VMs that shall exist, by hostname. Type and place count when a VM is made, and not after."
  type = map(object({
    instance_type = string
    subnet_id     = optional(string)
    zone          = optional(string)
  }))

  validation {
    condition     = alltrue([for name in keys(var.vms) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "A hostname has 1 to 63 lower-case letters, digits and inner hyphens."
  }
}

variable "user_data" {
  description = "What each VM that is made now runs at its first boot, by hostname; it holds an enrolment token."
  type        = map(string)
  sensitive   = true
}

variable "ami" {
  description = "The AMI: its id, or the SSM parameter that names it."
  type        = string

  validation {
    condition     = startswith(var.ami, "ami-") || startswith(var.ami, "/")
    error_message = "An AMI is an id such as ami-0123456789abcdef0, or an SSM parameter such as /aws/service/…."
  }
}

variable "held_ami" {
  description = "The AMI that the pool's VMs were made of, where the state that held it was lost."
  type        = string
  default     = null
}

variable "volume_gb" {
  description = "The size of the root volume, in GB."
  type        = number
}

variable "spot" {
  description = "Whether VMs are spot instances: cheaper, and AWS may take them away."
  type        = bool
}

variable "vpc_id" {
  description = "The VPC; the region's default one if null."
  type        = string
  nullable    = true
}

variable "ssh_cidrs" {
  description = "From where SSH is allowed; from nowhere if empty."
  type        = set(string)

  validation {
    condition     = alltrue([for cidr in var.ssh_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "SSH is open to listed IPv4 networks alone, never to the whole internet."
  }
}

variable "public_key" {
  description = "The public half of the pool's SSH key; no key pair if null."
  type        = string
  nullable    = true
}
