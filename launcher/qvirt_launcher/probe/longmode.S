# The guest that decides whether this machine's KVM can run a guest: the last 64 KiB below 4 GiB, entered at reset.
#
# It does in small what a kernel does first: protected mode, page tables, 64-bit mode, a jump to the upper half,
# descriptor tables, MSRs, memory, SSE, exceptions, a timer interrupt that ends HLT, user mode and back, and a loop
# that takes milliseconds on a processor and minutes where each instruction is interpreted.
#
# Port 0xE9: one letter per step begun. Port 0xF4 (isa-debug-exit): the verdict v; QEMU exits with 2*v+1.
#   0x2a  everything worked      n       step n gave a wrong result      0x40+n  an unexpected exception in step n
#
# tests/launcher/test_accel.py assembles this file and compares it with image.py:
#   as --64 -o x.o longmode.S && ld -Ttext=0xf000 -e 0xf000 --oformat binary -o x.bin x.o

.set ROM,   0xffff0000            # linear address of offset 0 of the image
.set RAM,   0x10000               # where the code is copied to
.set HIGH,  0xffffffff80000000    # the upper half's alias of physical address 0
.set PML4,  0x1000
.set PDPT,  0x2000
.set PD0,   0x3000
.set PD3,   0x4000
.set TSS,   0x7000
.set IDT,   0x8000
.set PERCPU, 0x9000
.set STACK, 0xf000
.set USERSTACK, 0xe000
.set FIELD, 0x400000              # memory that is written and read back
.set FIELD_WORDS, 0x20000         # 1 MiB
.set APIC,  0xfee00000
.set CODE32, 0x08
.set DATA,  0x10
.set CODE64, 0x18
.set USER_DATA, 0x2b
.set USER_CODE, 0x33
.set TSS_SELECTOR, 0x38
.set TIMER_VECTOR, 0x20
.set VERDICT_PORT, 0xf4
.set LETTER_PORT, 0xe9
.set GOOD, 0x2a

.macro step number, letter
    mov $\number, %r14d
    mov $\letter, %al
    out %al, $LETTER_PORT
.endm

.text
.code16
start:
    cli
    cld
    lgdtl %cs:rom_gdt_pointer
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $CODE32, $(ROM + protected)

.code32
protected:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $(ROM + start), %esi            # copy ourselves to RAM
    mov $RAM, %edi
    mov $(end - start), %ecx
    rep movsb
    lgdt RAM + low_gdt_pointer - start
    ljmp $CODE32, $(RAM + in_ram - start)
in_ram:
    xor %eax, %eax                      # clear tables, task state, interrupt table, stacks
    mov $PML4, %edi
    mov $((STACK - PML4) / 4), %ecx
    rep stosl
    movl $(PDPT + 7), PML4              # lower half
    movl $(PDPT + 7), PML4 + 511 * 8    # upper half
    movl $(PD0 + 7), PDPT
    movl $(PD0 + 7), PDPT + 510 * 8
    movl $(PD3 + 7), PDPT + 3 * 8
    mov $PD0, %edi                      # 512 pages of 2 MiB: present, writable, user, large
    mov $0x87, %eax
    mov $512, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    movl $(APIC + 0x9b), PD3 + ((APIC - 0xc0000000) >> 21) * 8   # the APIC's page, uncached
    mov $0x620, %eax                    # CR4: PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               # EFER: long mode, SYSCALL
    rdmsr
    or $0x101, %eax
    wrmsr
    mov $0x80010033, %eax               # CR0: PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmp $CODE64, $(RAM + long_mode - start)

.code64
long_mode:
    movabs $(HIGH + RAM + upper_half - start), %rax
    jmp *%rax
upper_half:
    movabs $(HIGH + STACK), %rsp
    step 1, 'a'                         # descriptor tables
    lgdt ram_gdt_pointer(%rip)
    mov $TSS_SELECTOR, %eax
    ltr %ax
    xor %ebx, %ebx
1:  lea unexpected(%rip), %rax
    call set_gate
    inc %ebx
    cmp $256, %ebx
    jne 1b
    mov $3, %ebx
    lea breakpoint(%rip), %rax
    call set_gate
    mov $6, %ebx
    lea undefined(%rip), %rax
    call set_gate
    mov $14, %ebx
    lea page_fault(%rip), %rax
    call set_gate
    mov $TIMER_VECTOR, %ebx
    lea timer(%rip), %rax
    call set_gate
    lidt idt_pointer(%rip)

    step 2, 'b'                         # CPUID and MSRs
    mov $0x80000001, %eax
    cpuid
    bt $29, %edx                        # long mode
    jnc wrong
    mov $0xc0000080, %ecx               # EFER: long mode active
    rdmsr
    bt $10, %eax
    jnc wrong
    mov $0x1b, %ecx                     # APIC base: where it belongs, enabled
    rdmsr
    and $0xfffff800, %eax
    cmp $(APIC + 0x800), %eax
    jne wrong
    mov $0xc0000102, %ecx               # KERNEL_GS_BASE, used by swapgs
    mov $(HIGH + PERCPU) & 0xffffffff, %eax
    mov $0xffffffff, %edx
    wrmsr
    movabs $0x0123456789abcdef, %rbx
    mov %rbx, PERCPU
    swapgs
    mov %gs:0, %rax
    swapgs
    cmp %rbx, %rax
    jne wrong

    step 3, 'c'                         # SSE
    movabs $0x0102030405060708, %rax
    movq %rax, %xmm0
    movdqa %xmm0, %xmm1
    paddq %xmm0, %xmm1
    movq %xmm1, %rbx
    add %rax, %rax
    cmp %rax, %rbx
    jne wrong

    step 4, 'd'                         # memory: written low, read high
    mov $FIELD, %edi
    mov $FIELD_WORDS, %ecx
1:  mov %rdi, (%rdi)
    add $8, %rdi
    loop 1b
    movabs $(HIGH + FIELD), %rsi
    mov $FIELD, %edi
    mov $FIELD_WORDS, %ecx
1:  cmp %rdi, (%rsi)
    jne wrong
    add $8, %rdi
    add $8, %rsi
    loop 1b

    step 5, 'e'                         # exceptions: breakpoint, undefined instruction
    int3
    ud2
    cmpl $2, seen(%rip)
    jne wrong

    step 6, 'f'                         # a page that is mapped when it is touched
    mov $0x40000000 + FIELD, %eax
    mov (%rax), %rbx
    cmp $FIELD, %rbx
    jne wrong
    cmpl $3, seen(%rip)
    jne wrong

    step 7, 'g'                         # a timer interrupt ends HLT
    mov $0xff, %al                      # nothing from the old interrupt controllers
    out %al, $0x21
    out %al, $0xa1
    mov $APIC, %esi
    movl $0x10000, 0x350(%rsi)          # LINT0 masked
    movl $0, 0x80(%rsi)                 # task priority
    movl $0x1ff, 0xf0(%rsi)             # enabled, spurious vector 255
    movl $0xb, 0x3e0(%rsi)              # divide by one
    movl $TIMER_VECTOR, 0x320(%rsi)     # one shot
    movl $0x10000, 0x380(%rsi)          # start
1:  sti
    hlt
    cli
    cmpl $4, seen(%rip)
    jne 1b

    step 8, 'h'                         # user mode, and back by SYSCALL
    mov $0xc0000081, %ecx               # STAR: kernel segments from 0x18
    xor %eax, %eax
    mov $CODE64, %edx
    wrmsr
    mov $0xc0000082, %ecx               # LSTAR: the upper half's alias of `entry`
    mov $(HIGH + RAM + entry - start) & 0xffffffff, %eax
    mov $0xffffffff, %edx
    wrmsr
    mov $0xc0000084, %ecx               # FMASK: interrupts, direction, trap
    mov $0x700, %eax
    xor %edx, %edx
    wrmsr
    pushq $USER_DATA
    pushq $USERSTACK
    pushq $2
    pushq $USER_CODE
    pushq $(RAM + user - start)
    iretq
user:
    mov %cs, %edi
    push %rdi
    pop %rdi
    syscall
after_syscall:
    ud2
entry:
    movabs $(HIGH + STACK), %rsp
    cmp $USER_CODE, %edi
    jne wrong
    cmp $(RAM + after_syscall - start), %rcx
    jne wrong
    mov %cs, %edi
    cmp $CODE64, %edi
    jne wrong

    step 9, 'i'                         # twenty million rounds
    mov $20000000, %ecx
1:  dec %ecx
    jnz 1b

    mov $GOOD, %al
    jmp verdict

wrong:
    mov %r14d, %eax
verdict:
    out %al, $VERDICT_PORT
1:  cli
    hlt
    jmp 1b

unexpected:
    lea 0x40(%r14), %eax
    jmp verdict
breakpoint:
    incl seen(%rip)
    iretq
undefined:
    incl seen(%rip)
    addq $2, (%rsp)                     # past UD2
    iretq
page_fault:
    incl seen(%rip)
    movl $(PD0 + 7), PDPT + 8           # the second GiB becomes an alias of the first
    add $8, %rsp                        # the error code
    iretq
timer:
    incl seen(%rip)
    movl $0, 0xb0(%rsi)                 # end of interrupt
    iretq

set_gate:                               # vector %ebx -> handler %rax
    mov %ebx, %edi
    shl $4, %edi
    add $IDT, %edi
    mov %ax, (%rdi)
    movw $CODE64, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shr $16, %rax
    mov %ax, 6(%rdi)
    shr $16, %rax
    mov %eax, 8(%rdi)
    ret

.balign 8
seen:
    .long 0
idt_pointer:
    .word 256 * 16 - 1
    .quad HIGH + IDT
ram_gdt_pointer:
    .word gdt_end - gdt - 1
    .quad HIGH + RAM + (gdt - start)
low_gdt_pointer:
    .word gdt_end - gdt - 1
    .long RAM + (gdt - start)
rom_gdt_pointer:
    .word gdt_end - gdt - 1
    .long ROM + gdt
.balign 8
gdt:                                    # all marked accessed, so that no load writes to ROM
    .quad 0
    .quad 0x00cf9b000000ffff            # 08 code, 32 bit
    .quad 0x00cf93000000ffff            # 10 data
    .quad 0x00af9b000000ffff            # 18 code, 64 bit
    .quad 0x00cf93000000ffff            # 20 data, SYSCALL's stack segment
    .quad 0x00cff3000000ffff            # 28 user data
    .quad 0x00affb000000ffff            # 30 user code, 64 bit
    .quad 0x0000890000000067 + (TSS << 16)   # 38 task state, two entries long
    .quad 0
gdt_end:
end:

.org 0xff0
.code16
    jmp start                           # the reset vector, at 0xfffffff0
.org 0x1000
