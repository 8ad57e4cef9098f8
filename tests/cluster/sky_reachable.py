"""A plugin of SkyPilot's server for tests: what it asks to learn whether there is a network.

SkyPilot 0.14.1 asks 8.8.8.8 and 1.1.1.1; without an answer its controller waits forever. Here it
asks the address in CRIA_REACHABLE.
"""

import os

from sky.backends import backend_utils
from sky.server.plugins import BasePlugin, ExtensionContext


class ReachablePlugin(BasePlugin):
    def install(self, extension_context: ExtensionContext) -> None:
        backend_utils._TEST_IP_LIST = [os.environ["CRIA_REACHABLE"]]
