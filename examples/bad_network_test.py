"""bad_network_test.py - a test that runs on a bad network, and on the same one again

Shows netkit.sim.impaired: everything that is opened inside loses, delays and repeats what it
sends and receives, and the code under test is unchanged.

    python -m unittest bad_network_test

With the `tries=20` below set to 3 it fails for some seeds, and a note under the error says which:
write that seed into the test, and it fails the same way until the bug is gone.
"""

import threading
import unittest

import netkit


def ask(sock, question, tries=20):
    """A question to a server over datagrams, asked again until the answer to it has come."""
    for _ in range(tries):
        sock.send(question)
        try:
            while True:
                answer, _ = sock.recv(timeout=0.05)
                if answer.startswith(question):         # not the second answer to another one
                    return answer
        except TimeoutError:
            pass
    raise TimeoutError(f"no answer to {question!r}")


def answer_questions(sock):
    for question, asker in sock:
        sock.send(question + b": yes", asker)


class Questions(unittest.TestCase):
    @netkit.sim.impaired(loss=0.3, duplicate=0.1, latency=0.005, jitter=0.005, overtake=True,
                         seed=7)
    def test_every_question_has_its_answer(self):
        with netkit.udp("127.0.0.1:0") as server, netkit.udp() as client:
            threading.Thread(target=answer_questions, args=(server,), daemon=True).start()
            client.connect(server.local)
            for number in range(5):
                question = b"question %d" % number
                self.assertEqual(ask(client, question), question + b": yes")
            # The network was as bad as it should be.
            self.assertGreater(netkit.sim.stats(client).sent.lost, 0)


if __name__ == "__main__":
    unittest.main()
