"""The domain of the services: tasks, leases, accounts, their rules, and the ports that adapters implement."""
