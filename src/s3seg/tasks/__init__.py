"""The domain of the services: tasks, leases, accounts, the ports that adapters implement, and the rules."""
