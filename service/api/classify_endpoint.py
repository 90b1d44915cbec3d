"""``POST /classify``: from a request to a command, from an answer to a reply.

The route that is asked thousands of times a second; requests go around the framework. One that is
all there is served without a task: begun in one synchronous step, ended by a callback. One whose
body is still coming, or which has to wait for its decoding, is served by a task that awaits it.
"""

import asyncio
import logging
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from service.api.answers import AnswerForm
from service.api.body import BufferAccount
from service.api.classify_answer import AnswerWriter
from service.api.classify_query import ClassifyAsked, names_deadline, read_classify_query
from service.api.classify_visit import Ended, Visit
from service.api.context import current_request_id
from service.api.exchange import AsgiExchange, Exchange, Reply, response_of
from service.api.failures import HUNG_UP, ProblemTeller
from service.api.hangup import ClientGone
from service.api.reception import Reception
from service.api.services import BegunClassify, ClassifyRoute
from service.api.whole_request import WholeRequest
from service.commands import Classified, ClassifyAnnounced, ClassifyCommand
from service.engine.request import ImageOutcome
from service.errors import ServiceError
from service.uploads import Upload

PATH: Final = "/classify"
_JSON: Final = b"application/json"
_DEFECT: Final = "a request met a defect"

logger = logging.getLogger(__name__)


class ClassifyEndpoint:
    """Handles ``POST /classify``.

    Args:
        service: Answers.
        reception: Lets requests in.
        teller: Words what is told instead of an answer.
    """

    def __init__(self, service: ClassifyRoute, reception: Reception, teller: ProblemTeller) -> None:
        self._service = service
        self._reception = reception
        self._teller = teller
        self._writer = AnswerWriter()

    def start(self, request: WholeRequest, ended: Ended) -> bool:
        """Serve a request without a task; False where that takes one, and nothing was done.

        A defect is told the caller and the log, and goes no further: raised from here it would
        cost the connection, and with it what was told.

        Args:
            request: All of it.
            ended: Called once it is over, however.
        """
        token = current_request_id.set(request.context.request_id)
        try:
            return self._start(Visit(request, self._reception.intake.account(), ended))
        finally:
            current_request_id.reset(token)

    async def serve(self, exchange: Exchange) -> None:
        """Answer one request, whatever comes of it; may have to wait for it first.

        Raises:
            Exception: A defect, once the caller has been told of it; for the log.
        """
        try:
            done, form = await self._classify(exchange)
            reply = self._reply(done, form)
        except ClientGone:
            exchange.context.outcome = HUNG_UP
            return
        except ServiceError as error:
            await exchange.reply(self._refusal(exchange, error))
            return
        except Exception:
            # All of them: a defect has no type to expect, and its caller would wait for an answer
            # for good. It goes on to whoever logs it.
            await exchange.reply(self._teller.defect(exchange.context))
            raise
        await exchange.reply(reply)
        self._service.delivered(done)

    async def handle(self, request: Request) -> Response:
        """Return the answer, to the framework: where the application is mounted below a path."""
        exchange = AsgiExchange(request.scope, request.receive, _send_nothing)
        done, form = await self._classify(exchange)
        return response_of(self._reply(done, form))

    def _start(self, visit: Visit) -> bool:
        request, account = visit.request, visit.account
        try:
            asked = self._read(request)
            upload = self._reception.intake.take_image(request, request.body, account)
            begun = self._service.begin(self._command(request, asked, upload))
        except ServiceError as error:
            visit.end(self._refusal(request, error))
            return True
        except Exception:
            # All of them: who calls is the connection, which a defect let out would cost, with
            # its caller told nothing and the memory for his body never given back.
            logger.exception(_DEFECT)
            visit.end(self._teller.defect(request.context))
            return True
        if begun is None:
            account.release()
            return False

        def answer(_: "asyncio.Future[ImageOutcome]") -> None:
            if not request.has_left:
                self._answer(visit, begun, asked.form)

        visit.wait_for(begun)
        begun.outcome.add_done_callback(answer)
        return True

    def _answer(self, visit: Visit, begun: BegunClassify, form: AnswerForm) -> None:
        try:
            done = begun.finish()
            reply = self._reply(done, form)
        except ServiceError as error:
            visit.end(self._refusal(visit.request, error))
        except Exception:
            # All of them: a future called us, and the event loop would only log what it is let.
            logger.exception(_DEFECT)
            visit.end(self._teller.defect(visit.request.context))
        else:
            visit.end(reply)
            self._service.delivered(done)

    async def _classify(self, exchange: Exchange) -> tuple[Classified, AnswerForm]:
        asked = self._read(exchange)
        with self._reception.intake.account() as account:
            if exchange.whole_body is None:
                return await self._classify_coming(exchange, asked, account), asked.form
            upload = self._reception.intake.take_image(exchange, exchange.whole_body, account)
            work = self._service.classify(self._command(exchange, asked, upload))
            return await exchange.while_connected(work), asked.form

    async def _classify_coming(
        self, exchange: Exchange, asked: ClassifyAsked, account: BufferAccount
    ) -> Classified:
        """Refuse what has no chance before its body is read, and hold its place meanwhile."""
        announced = ClassifyAnnounced(
            arrived_at=exchange.context.arrived_at,
            held_up_s=exchange.context.held_up_s,
            model=asked.model,
            deadline_s=asked.deadline_s,
            min_exit=asked.min_exit,
        )
        with self._service.announce(announced) as place:
            upload = await self._reception.intake.receive_image(exchange, account)
            work = self._service.classify(self._command(exchange, asked, upload), place)
            return await exchange.while_connected(work)

    def _read(self, exchange: Exchange) -> ClassifyAsked:
        asked = read_classify_query(exchange.query)
        self._reception.health.refuse_unless_open()
        return asked

    def _command(self, exchange: Exchange, asked: ClassifyAsked, upload: Upload) -> ClassifyCommand:
        context = exchange.context
        return ClassifyCommand(
            arrived_at=context.arrived_at,
            received_s=self._reception.clock.now() - context.arrived_at,
            held_up_s=context.held_up_s,
            upload=upload,
            model=asked.model,
            deadline_s=asked.deadline_s,
            budget_macs=asked.budget_macs,
            min_confidence=asked.min_confidence,
            min_exit=asked.min_exit,
            max_exit=asked.max_exit,
            top_k=asked.form.top_k,
            detail=asked.form.detail,
        )

    def _reply(self, done: Classified, form: AnswerForm) -> Reply:
        self._reception.metrics.answered(
            PATH, decode_s=done.timing.decode_s, deadline=done.deadline
        )
        return Reply(200, _JSON, self._writer.write(done, form))

    def _refusal(self, exchange: Exchange, error: ServiceError) -> Reply:
        has_deadline = names_deadline(exchange.query)
        reply = self._teller.refusal(error, exchange.context, has_deadline=has_deadline)
        # It holds the frames it passed, and some of them hold it: under overload the garbage
        # collector would have more to do with refusals than the server.
        error.__traceback__ = None
        return reply


async def _send_nothing(message: Message) -> None:
    """Take the place of a way back where the framework has its own."""
    raise RuntimeError(f"the framework sends {message['type']} itself")
