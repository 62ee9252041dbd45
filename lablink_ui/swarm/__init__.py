"""A load tool: machines and people as they really behave, against a running server; it judges what they saw.

Machines speak the agents' contract and people use the pages' own requests and sockets, in processes of their own. All
random follows from the scenario and the seed; at the end everything that came has left.
"""
