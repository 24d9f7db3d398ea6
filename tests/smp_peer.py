# SPDX-License-Identifier: Apache-2.0
"""What a user of smpclient does to a board, as a program: any version of the package can run it. Prints what it saw.

usage: smp_peer.py PORT FILE
"""

import asyncio
import json
import sys

from smpclient import SMPClient
from smpclient.generics import success
from smpclient.requests.file_management import FileDownload
from smpclient.requests.image_management import ImageErase, ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import EchoWrite, ResetWrite
from smpclient.transport.serial import SMPSerialTransport


async def ask(client, request):
    answer = await client.request(request)
    assert success(answer), answer
    return answer


async def main(port, path):
    with open(path, "rb") as stream:
        data = stream.read()
    said = {}
    async with SMPClient(SMPSerialTransport(), port) as client:
        said["echo"] = (await ask(client, EchoWrite(d="hello"))).r
        said["before"] = len((await ask(client, ImageStatesRead())).images)
        said["offsets"] = [offset async for offset in client.upload(data)]
        (image,) = (await ask(client, ImageStatesRead())).images
        said["hash"], said["version"] = image.hash.hex(), image.version
        said["test"] = [i.pending for i in (await ask(client, ImageStatesWrite(hash=image.hash))).images]
        said["too early"] = not success(await client.request(ImageStatesWrite(hash=image.hash, confirm=True)))
        await ask(client, ResetWrite())
    await asyncio.sleep(0.5)
    async with SMPClient(SMPSerialTransport(), port) as client:
        (image,) = (await ask(client, ImageStatesRead())).images
        said["active"], said["confirmed before"] = image.active, image.confirmed
        (image,) = (await ask(client, ImageStatesWrite(confirm=True))).images
        said["confirmed"] = image.confirmed
        said["erase refused"] = not success(await client.request(ImageErase(slot=image.slot)))
        said["log"] = (await ask(client, FileDownload(name="/logs/board.log", off=0))).data.decode()
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
