"""virt-controller: VirtualMachine -> VirtualMachineInstance -> launcher pod. The only one that creates pods."""
