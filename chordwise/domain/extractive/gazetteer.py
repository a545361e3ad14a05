"""Words that tell whose a name is: given names, places, forms of organizations."""

from __future__ import annotations

_GIVEN = """
aaron abigail abraham adam adrian agnes ahmed alan albert alex alexander alexandra alfred ali alice
alison allan amanda amelia amy ana andrea andrew andy angela anita ann anna anne annette anthony
antonio arnold arthur barbara barry beatrice ben benjamin bernard beth betty bill bob brandon
brenda brian bruce bruno calvin carl carla carlos carol caroline catherine cathy charles charlie
charlotte cheryl chester chris christian christina christine christopher claire clara claude
claudia colin craig cynthia dan daniel daniela darren dave david deborah debra dennis derek diana
diane diego dmitri donald donna dorothy doug douglas dwight ed eddie edgar edith edmund eduardo
edward edwin eileen elaine eleanor elena elisabeth elizabeth ella ellen emily emma eric erica
ernest ethan eugene eva evelyn fatima felix fernando fiona florence frances francesco francis frank
franklin fred frederick gary gavin geoffrey george gerald gerard gloria gordon grace graham greg
gregory grover guy hannah hans harold harriet harry heather heinrich helen henri henry herbert
herman howard hugh hugo ian igor ingrid irene isaac isabel ivan jack jacob jacqueline jacques james
jan jane janet janice jason jay jean jeff jeffrey jennifer jeremy jerry jesse jessica jill jim
jimmy joan joe johan johann john johnny jon jonathan jordan jorge jose joseph joshua joyce juan
judith judy julia julian julie justin karen karl kate katherine kathleen kathryn keith kelly ken
kenneth kevin kim klaus kurt kyle larry laura lauren laurence lawrence lee leo leon leonard
leonardo leslie lewis liam linda lisa louis louise lucas lucy luis luke lyndon lynn madeleine marc
marco margaret maria marie marion mario mark martha martin marvin mary matt matthew maurice max
megan melissa michael michel michelle miguel mike millard miriam mohamed mohammed monica nancy
naomi natalie nathan neil nicholas nick nicola nicole nikola nina noah norman olga oliver olivia
omar oscar otto pablo pamela pat patricia patrick paul paula paulo pedro peter phil philip philippe
phillip pierre rachel ralph ray raymond rebecca rene richard rick rita rob robert roberto robin
rodney roger roland ron ronald rosa rose ross roy russell ruth rutherford ryan sally sam samantha
samuel sandra sarah scott sean sergei sharon sheila shirley silvia simon sofia sophia sophie
stanley stefan stephanie stephen steve steven stuart susan sven sylvia teresa terry theodore
theresa thomas tim timothy tina todd tom tony tracy ulrich ulysses vanessa vera victor victoria
vincent virginia vladimir walter warren wayne wendy werner wilhelm will william winston wolfgang
woodrow xavier yusuf yves zachary zoe
"""

_COUNTRIES = """
afghanistan, africa, albania, algeria, america, angola, argentina, armenia, asia, australia,
austria, azerbaijan, bangladesh, belarus, belgium, bolivia, brazil, britain, bulgaria, cambodia,
cameroon, canada, chile, china, colombia, costa rica, croatia, cuba, cyprus, czech republic,
denmark, dominican republic, ecuador, egypt, el salvador, england, estonia, ethiopia, europe,
finland, france, georgia, germany, ghana, great britain, greece, guatemala, haiti, honduras,
hong kong, hungary, iceland, india, indonesia, iran, iraq, ireland, israel, italy, jamaica, japan,
jordan, kazakhstan, kenya, korea, kosovo, kuwait, latvia, lebanon, libya, lithuania, luxembourg,
malaysia, malta, mexico, middle east, moldova, mongolia, morocco, mozambique, myanmar, nepal,
netherlands, new zealand, nicaragua, nigeria, north korea, norway, pakistan, palestine, panama,
paraguay, peru, philippines, poland, portugal, puerto rico, qatar, romania, russia, rwanda,
saudi arabia, scotland, senegal, serbia, singapore, slovakia, slovenia, somalia, south africa,
south korea, soviet union, spain, sri lanka, sudan, sweden, switzerland, syria, taiwan, tanzania,
thailand, the hague, tunisia, turkey, uganda, ukraine, united arab emirates, united kingdom,
united states, united states of america, uruguay, u.s, usa, uk, venezuela, vietnam, wales, yemen,
zambia, zimbabwe, north america, south america, latin america, western europe, eastern europe
"""

_STATES_AND_CITIES = """
alabama, alaska, arizona, arkansas, california, colorado, connecticut, delaware, florida, hawaii,
idaho, illinois, indiana, iowa, kansas, kentucky, louisiana, maine, maryland, massachusetts,
michigan, minnesota, mississippi, missouri, montana, nebraska, nevada, new hampshire, new jersey,
new mexico, new york, north carolina, north dakota, ohio, oklahoma, oregon, pennsylvania,
rhode island, south carolina, south dakota, tennessee, texas, utah, vermont, virginia, washington,
west virginia, wisconsin, wyoming, ontario, quebec, british columbia, alberta, amsterdam, athens,
atlanta, austin, baghdad, baltimore, bangkok, barcelona, beijing, berlin, boston, brussels,
budapest, buenos aires, cairo, cambridge, chicago, cleveland, copenhagen, dallas, delhi, denver,
detroit, dublin, edinburgh, frankfurt, geneva, glasgow, hamburg, helsinki, houston, istanbul,
jakarta, jerusalem, kyiv, lagos, las vegas, lisbon, london, los angeles, madrid, manchester, manila,
melbourne, miami, milan, minneapolis, montreal, moscow, mumbai, munich, nairobi, new delhi,
new orleans, new york city, oslo, oxford, palo alto, paris, philadelphia, phoenix, pittsburgh,
portland, prague, rio de janeiro, rome, san antonio, san diego, san francisco, san jose, santiago,
sao paulo, seattle, seoul, shanghai, st. louis, stockholm, sydney, tel aviv, tokyo, toronto,
vancouver, venice, vienna, warsaw, washington dc, washington d.c, zurich, manhattan, brooklyn
"""

_PLACE_FORMS = """
avenue bay beach boulevard bridge canyon city county desert district forest garden hills island
islands lake mountain mountains ocean park peninsula plaza province river road sea square street
valley village
"""

_ORGANIZATION_FORMS = """
academy administration ag agency airlines alliance associates association authority bank bundesbank
bureau capital chamber club co college commission committee communications companies company
congress consortium consulting cooperative corp corporation council court department electronics
energy enterprises entertainment federation financial forces foundation fund gmbh group holdings
hospital hotels inc incorporated industries institute institution insurance international
laboratories labs league library limited llc llp ltd media ministry motors museum nations networks
office orchestra organisation organization parliament partners pharmaceuticals plc police press
productions publishing records resources school senate services society solutions studios systems
team technologies technology theatre therapeutics trust union university ventures b.v s.a n.v l.p
l.l.c lp
"""

_TIMES = """
monday tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december spring summer autumn winter today tomorrow yesterday
dear sincerely regards thanks thank please hello hi subject re cc page chapter section article
exhibit schedule annex appendix table figure note name title by signature signed its attn whereas
"""

_ORDINARY = """
agreement agreements amendment article attachment confidential consultant contract date effective
exhibit if information is no parties party schedule section shall speaker term terms the
"""

_WELL_KNOWN = """
congress, senate, parliament, house of representatives, supreme court, nato, united nations, un,
eu, democratic party, republican party, labour party, conservative party, european union, european
commission, world bank, white house, nasa, google, microsoft, amazon, apple, facebook, ibm, intel,
twitter, wikipedia, harvard, stanford, mit, bbc, cnn, reuters, sec, irs, fbi, treasury, pentagon,
commission, bundestag, new york stock exchange
"""

_ACRONYMS = "ceo cfo cto faq pdf html http usd eur gbp exv doc usa iii vii the and xii viii"


def _listed(text: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for name in text.split(","))


GIVEN_NAMES = frozenset(_GIVEN.split())
PLACES = _listed(_COUNTRIES) | _listed(_STATES_AND_CITIES)
PLACE_WORDS = frozenset(_PLACE_FORMS.split())
ORGANIZATION_WORDS = frozenset(_ORGANIZATION_FORMS.split())
ORGANIZATIONS = _listed(_WELL_KNOWN)
ORDINARY_WORDS = frozenset(_ORDINARY.split())
TIME_WORDS = frozenset(_TIMES.split())
ORDINARY_ACRONYMS = frozenset(_ACRONYMS.split())
