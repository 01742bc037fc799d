"""What this node offers to pods beyond CPU and memory, told to the kubelet."""
