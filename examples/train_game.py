"""train_game.py - test your game on a train

A server tells a player the state of the game 20 times a second, over a bad network; the program
prints what the player would see. Shows netkit.sim with datagrams.

    python train_game.py 30 train 7         30 seconds, the profile "train", seed 7

Prints a line for each second, for example

    second 21: 0 of 20 states in time, 0 late, 20 lost, 0 twice; nothing for 1000 ms

and at the end what repeats it. The seed decides which states are lost.
"""

import struct
import sys
import time

import netkit

seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
profile = sys.argv[2] if len(sys.argv) > 2 else "train"
seed = int(sys.argv[3]) if len(sys.argv) > 3 else None

RATE = 20                   # states a second
IN_TIME = 0.15              # older ones are no use to the player

server, player = netkit.udp_pair()
netkit.sim.impair(player, profile, seed=seed)
began = time.monotonic()
arrived = {}                # number of a state: how old it was, each time that it came
last_news = began


def play_until(moment):
    """The player's side, until it is time for the next state. Gives the longest silence."""
    global last_news
    silence = 0.0
    while True:
        try:
            data, _ = player.recv(timeout=max(0, moment - time.monotonic()))
        except TimeoutError:
            return max(silence, time.monotonic() - last_news)
        number, sent = struct.unpack("!Id", data)
        now = time.monotonic()
        arrived.setdefault(number, []).append(now - sent)
        silence = max(silence, now - last_news)
        last_news = now


with server, player:
    gaps = []
    for number in range(seconds * RATE):
        server.send(struct.pack("!Id", number, time.monotonic()))
        gap = play_until(began + (number + 1) / RATE)
        gaps.append(gap)
    play_until(time.monotonic() + 1)            # what is still under way
    counted = netkit.sim.stats(player).received

for second in range(seconds):
    numbers = range(second * RATE, (second + 1) * RATE)
    ages = [arrived[number][0] for number in numbers if number in arrived]
    print(f"second {second + 1}: {sum(age <= IN_TIME for age in ages)} of {RATE} states in time,",
          f"{sum(age > IN_TIME for age in ages)} late, {RATE - len(ages)} lost,",
          f"{sum(len(arrived.get(number, ())) > 1 for number in numbers)} twice;",
          f"nothing for {max(gaps[numbers.start:numbers.stop]) * 1000:.0f} ms")
print(f"{counted.sent} states sent, {counted.lost} lost; again: "
      f"python train_game.py {seconds} {profile} {counted.seed}")
