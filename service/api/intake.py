"""From a request's body to what was sent in it, still undecoded."""

import asyncio
from contextlib import AbstractContextManager
from typing import Final

from starlette.requests import Request

from service.api.body import (
    BodyLimits,
    BufferAccount,
    BufferLedger,
    WholeBody,
    receive_body,
)
from service.api.media import BodyForm, batch_form, image_form
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

    def account(self) -> AbstractContextManager[BufferAccount]:
        """Hold memory for one request's body until the block ends."""
        return self._ledger.account()

    async def receive_image(self, request: Request, account: BufferAccount) -> Upload:
        """Return the one image of a request.

        Raises:
            RequestRejected: There is none, or it is too large or too slow.
            ClientGone: The client hung up.
        """
        content_type = request.headers.get("content-type")
        if image_form(content_type) is BodyForm.WHOLE:
            whole = WholeBody()
            await receive_body(request, whole, self._image, account)
            return read_image(whole.joined(), content_type)
        form = FormFiles(content_type or "", field=_IMAGE_FIELD, max_parts=1)
        await receive_body(request, form, self._image, account)
        return read_image(form.finish()[0].data)

    async def receive_batch(self, request: Request, account: BufferAccount) -> BatchUpload:
        """Return the images of a request.

        Raises:
            RequestRejected: There are none, too many, or they are too large or too slow.
            ClientGone: The client hung up.
        """
        content_type = request.headers.get("content-type")
        if batch_form(content_type) is BodyForm.WHOLE:
            whole = WholeBody()
            await receive_body(request, whole, self._batch, account)
            # Listing an archive of thousands takes too long for the event loop.
            return await asyncio.to_thread(read_batch, whole.joined(), content_type, self._uploads)
        form = FormFiles(content_type or "", field=_BATCH_FIELD, max_parts=self._uploads.max_images)
        await receive_body(request, form, self._batch, account)
        files = [(part.filename, part.data) for part in form.finish()]
        return batch_of_files(files, self._uploads)
