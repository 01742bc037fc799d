"""QMP with our manners: deadlines, typed events, one monitor shared by many clients under a policy.

Knows neither Kubernetes nor the VM spec.
"""
