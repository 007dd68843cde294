"""From a driver's answer to the two wire responses; no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from meshnode.blocks.conversation.scrub import scrub
from meshnode.interfaces import ConverseChoice, ConverseOutput, ConverseUsage, ToolCall
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["response_alpha1", "response_alpha2"]


def response_alpha1(
    request: runtime.ConversationRequest, outputs: Sequence[ConverseOutput]
) -> runtime.ConversationResponse:
    """The first choice of each output; the request's parameters come back with it, as in Dapr."""
    texts = [output.choices[0].text if output.choices else "" for output in outputs]
    return runtime.ConversationResponse(
        context_id=request.context_id or None,
        outputs=[
            runtime.ConversationResult(
                result=scrub(text) if request.scrub_pii else text, parameters=dict(request.parameters)
            )
            for text in texts
        ],
    )


def response_alpha2(
    request: runtime.ConversationRequestAlpha2, outputs: Sequence[ConverseOutput]
) -> runtime.ConversationResponseAlpha2:
    clean = bool(request.scrub_pii)
    return runtime.ConversationResponseAlpha2(
        context_id=request.context_id or None,
        outputs=[
            runtime.ConversationResultAlpha2(
                choices=[_choice(choice, clean) for choice in output.choices],
                model=output.model or None,
                usage=None if output.usage is None else _usage(output.usage),
            )
            for output in outputs
        ],
    )


def _choice(choice: ConverseChoice, clean: bool) -> runtime.ConversationResultChoices:
    return runtime.ConversationResultChoices(
        finish_reason=choice.finish_reason,
        index=choice.index,
        message=runtime.ConversationResultMessage(
            content=scrub(choice.text) if clean else choice.text,
            tool_calls=[_tool_call(call) for call in choice.tool_calls],
        ),
    )


def _tool_call(call: ToolCall) -> runtime.ConversationToolCalls:
    function = runtime.ConversationToolCallsOfFunction(name=call.name, arguments=call.arguments)
    return runtime.ConversationToolCalls(id=call.id or None, function=function)


def _usage(usage: ConverseUsage) -> runtime.ConversationResultAlpha2CompletionUsage:
    """Details only where there is something to tell."""
    completion = runtime.ConversationResultAlpha2CompletionUsageCompletionTokensDetails(
        reasoning_tokens=usage.reasoning_tokens
    )
    prompt = runtime.ConversationResultAlpha2CompletionUsagePromptTokensDetails(
        cached_tokens=usage.cached_tokens
    )
    return runtime.ConversationResultAlpha2CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        completion_tokens_details=completion if usage.reasoning_tokens else None,
        prompt_tokens_details=prompt if usage.cached_tokens else None,
    )
