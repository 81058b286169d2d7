"""What warmrack is compared with, each as processes of its own."""
