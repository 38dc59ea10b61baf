"""What happens when stored records are damaged or lost."""
