"""The processes of a stage, on one host or several.

launcher              the one module that starts them and waits for their result
start                 the two ways to start them: forked, or by accelerate's launch
subprocess_launcher   accelerate's launch, in a separate process
subprocess_worker     a process that it starts
rendezvous            the address on which they meet
preflight             the needs of a training, checked before the start
side_process          a function in a process beside the kernel, before the training
multinode             several hosts: agreement, and the end when one disappears
waiting               a further host, which waits for host 0
graceful_stop         the agreement after each step to save or to end
errors                the error that ended a process, in one sentence
"""
