"""Every form that conversations come in: the same conversation, the same token ids, through the library and through every command."""

import pytest
from input_forms import FORMS
from test_seam import Letters

from demeanor.cli.inputs import columns_of
from demeanor.data.columns import Columns
from demeanor.data.inputs import open_input
from demeanor.errors import ConversationError

OPTIONS = {
    "--messages-column": "messages", "--prompt-column": "prompt", "--response-column": "response", "--messages-path": "path",
    "--conversation-column": "conversation", "--role-column": "role", "--content-column": "content", "--read": "read",
}  # fmt: skip


def columns(options):
    pairs = list(zip(options[::2], options[1::2], strict=True))
    named = {OPTIONS[option]: value for option, value in pairs if option != "--role"}
    return columns_of(**named, roles=[value for option, value in pairs if option == "--role"])


def file_of(form, folder):
    path = folder / form.file
    path.write_bytes(form.content)
    return path


def turns(found):
    return [(m.role, m.content) for m in found.conversation.messages]


@pytest.fixture(params=FORMS, ids=[form.name for form in FORMS])
def form(request):
    return request.param


def test_sixty_forms():
    assert len(FORMS) >= 60
    assert len({form.name for form in FORMS}) == len(FORMS)


def test_every_form_gives_the_conversation_that_is_meant_and_equal_tokens(form, tmp_path):
    source = open_input(file_of(form, tmp_path), columns(form.options))
    looked = source.look()
    found = [f for _, f in source.read()]
    assert [turns(f) for f in found] == form.meant
    assert {f.form for f in found} == {form.read_as}
    assert looked.rows == len(form.meant)
    assert f"read as {form.read_as}, {looked.rows} conversation" in " ".join(looked.summary)
    own = [Columns().find({"messages": [{"role": r, "content": c} for r, c in talk]}).conversation for talk in form.meant]
    reader = Letters()
    ids, expected = ([e.ids for e in reader.encode(talks)] for talks in ([f.conversation for f in found], own))
    assert ids == expected
    for i, f in enumerate(found):
        if i in form.not_scored:
            with pytest.raises(ConversationError):
                f.to_score()
        else:
            assert f.to_score() == f.conversation


def test_every_form_is_read_in_shards_from_any_place(form, tmp_path):
    source = open_input(file_of(form, tmp_path), columns(form.options)).source
    survey = source.survey(1)
    assert survey.rows == len(form.meant)
    read = [row for cut in reversed(survey.cuts) for row in source.read(cut, survey.schema).rows][::-1]
    source.close()
    assert [[(m.role, m.content) for m in source.columns.find(row.record).conversation.messages] for row in read] == form.meant
