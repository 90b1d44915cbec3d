"""From a request's body to what was sent in it, still undecoded."""

import asyncio
from typing import Final

from starlette.requests import Request

from service.api.body import (
    Arriving,
    BodyLimits,
    BufferAccount,
    BufferLedger,
    WholeBody,
    receive_body,
    take_body,
)
from service.api.exchange import Exchange
from service.api.media import BodyForm, batch_form, image_form, text_of
from service.api.multipart import FormFiles
from service.uploads import (
    BatchUpload,
    Upload,
    UploadLimits,
    batch_of_files,
    read_batch,
    read_image,
)

_IMAGE_FIELD: Final = "file"
_BATCH_FIELD: Final = "files"


class Intake:
    """Receives uploads; what cannot be one is refused before its body is read.

    Args:
        image: Limits on the body of one image.
        batch: Limits on the body of a batch.
        uploads: Limits on what the bodies hold.
        ledger: Memory for all bodies together.
    """

    def __init__(
        self,
        *,
        image: BodyLimits,
        batch: BodyLimits,
        uploads: UploadLimits,
        ledger: BufferLedger,
    ) -> None:
        self._image = image
        self._batch = batch
        self._uploads = uploads
        self._ledger = ledger

    def account(self) -> BufferAccount:
        """Hold memory for one request's body until the block ends."""
        return self._ledger.account()

    def take_image(self, exchange: Exchange, body: bytes, account: BufferAccount) -> Upload:
        """Return the one image of a request whose body is all there.

        Raises:
            RequestRejected: There is none, or it is too large.
        """
        content_type = exchange.headers.get(b"content-type")
        form = image_form(content_type)
        take_body(body, exchange.headers.get(b"content-length"), self._image, account)
        if form is BodyForm.WHOLE:
            return read_image(body, text_of(content_type))
        files = FormFiles(text_of(content_type) or "", field=_IMAGE_FIELD, max_parts=1)
        if body:
            files.feed(body)
        return read_image(files.finish()[0].data)

    async def receive_image(self, exchange: Exchange, account: BufferAccount) -> Upload:
        """Return the one image of a request whose body is still coming.

        Raises:
            RequestRejected: There is none, or it is too large or too slow.
            ClientGone: The client hung up.
        """
        content_type = exchange.headers.get(b"content-type")
        arriving = Arriving(exchange.receive, exchange.headers.get(b"content-length"))
        if image_form(content_type) is BodyForm.WHOLE:
            whole = WholeBody()
            await receive_body(arriving, whole, self._image, account)
            return read_image(whole.joined(), text_of(content_type))
        form = FormFiles(text_of(content_type) or "", field=_IMAGE_FIELD, max_parts=1)
        await receive_body(arriving, form, self._image, account)
        return read_image(form.finish()[0].data)

    async def receive_batch(self, request: Request, account: BufferAccount) -> BatchUpload:
        """Return the images of a request.

        Raises:
            RequestRejected: There are none, too many, or they are too large or too slow.
            ClientGone: The client hung up.
        """
        headers = dict(request.scope["headers"])
        content_type = headers.get(b"content-type")
        arriving = Arriving(request.receive, headers.get(b"content-length"))
        if batch_form(content_type) is BodyForm.WHOLE:
            whole = WholeBody()
            await receive_body(arriving, whole, self._batch, account)
            # Listing an archive of thousands takes too long for the event loop.
            return await asyncio.to_thread(
                read_batch, whole.joined(), text_of(content_type), self._uploads
            )
        form = FormFiles(
            text_of(content_type) or "", field=_BATCH_FIELD, max_parts=self._uploads.max_images
        )
        await receive_body(arriving, form, self._batch, account)
        files = [(part.filename, part.data) for part in form.finish()]
        return batch_of_files(files, self._uploads)
