"""English words that say nothing about what a text is about."""

from __future__ import annotations

_FUNCTION_WORDS = """
a about above across after again against all almost along already also although always am among an
and another any anyone anything are aren't around as at away be became because become been before
began behind being below beside between beyond both but by came can can't cannot come could couldn't
did didn't do does doesn't doing don't done down during each either else enough even ever every
everyone everything few for from further gave get gets getting give given go goes going gone got had
hadn't has hasn't have haven't having he he'd he'll he's hence her here hers herself him himself his
how however i i'd i'll i'm i've if in indeed instead into is isn't it it'd it'll it's its itself
just keep kept knew know known last later least less let let's like made make makes making many may
maybe me might mine more moreover most much must my myself near need neither never nevertheless next
no none nor not nothing now of off often oh ok okay on once one one's only onto or other others our
ours ourselves out over own per perhaps put quite rather really said same saw say saying says see
seem seemed seems seen shall she she'd she'll she's should shouldn't since so some somebody someone
something sometimes somewhere still such take taken than that that's the their theirs them
themselves then there there's therefore these they they'd they'll they're they've thing things think
this those though through thus to together too took toward towards under unless until up upon us use
used uses using very via want wants was wasn't way we we'd we'll we're we've well went were weren't
what what's whatever when where whereas wherever whether which while who who's whoever whole whom
whose why will with within without won't would wouldn't yeah yes yet you you'd you'll you're you've
your yours yourself yourselves uh um hmm mm gonna etc hereby herein hereof hereto thereof thereto
therein pursuant
"""

STOPWORDS = frozenset(_FUNCTION_WORDS.split())

_GENERIC = """
able according actually anyway asked believe best better big bit call called certain change day days
different early end fact far feel find first five following found four get good great group happen
help hundred important kind large left little long look looking lot main matter mean means members
million months mr mrs ms nbsp new number old particular part people place point possible present
present problem provide provided question right say section second set several show shown shows six
small sort start stuff sure talk tell ten th thank third thought thousand three time times today
total tried try trying two understand way ways week weeks whatever word words work year years
january february march april june july august september october november december monday tuesday
wednesday thursday friday saturday sunday dear sincerely regards
"""

# Content words too common to name a topic; they still count when sentences are compared.
GENERIC_WORDS = frozenset(_GENERIC.split())

_FOREIGN = """
aber alle allem allen aller alles also anderen auch beim bereits dabei dadurch damit dann daran
darauf daraus dass dazu deren dessen diese diesem diesen dieser dieses doch durch einem einen einer
eines eine einige gegen haben hatte hatten ihre ihrem ihren ihrer immer jede jeder jedoch kann kein
keine können mehr muss müssen nach nicht noch nur oder ohne schon sehr sein seine seinem seinen
seiner seit sich sind sowie über unter viele vom wegen weil wenn werden wird wurde wurden zwischen
zum zur ainsi alors aucun aussi autre autres avait avec avoir cela cette ceux chaque comme dans
depuis donc elle elles encore entre était être fait leur leurs lors mais même notre nous pour plus
quand quelque sans selon sera sont sous tous tout toute toutes très vous algunas algunos antes como
cuando cual desde donde durante ella ellos entre eran esta estas este esto estos están fueron había
hasta hacia muchos mucho mientras otra otras otro otros para pero porque puede pueden según sino
sobre también tanto tiene tienen toda todas todo todos unos alla alle anche ancora avere come così
cosa dalla dalle degli della delle dello dopo essere hanno loro molto nella nelle negli nello ogni
perché però più prima quale quando quella quelle quello questa queste questo questi sono stata stato
sulla sulle tutti tutto aan bij deze door haar heeft hebben hij hun kunnen maar meer naar niet onder
over toen tussen veel voor waren werd wordt worden zijn zich ainda apenas assim depois dessa desse
ele eles essa esse estão foram isso mais mesmo muito nossa não onde pela pelo pode quem sendo seus
suas também tem uma você
"""

FOREIGN_FUNCTION_WORDS = frozenset(_FOREIGN.split())
