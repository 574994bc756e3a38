"""What a program that uses elasticsearch-py 8 or 9, or elasticsearch-dsl, does: search_client_new.py MAJOR PORT USER PASSWORD."""

import sys
import warnings

from elasticsearch import Elasticsearch, NotFoundError, helpers

major, port, user, password = sys.argv[1:]
warnings.simplefilter("ignore")
INDEX = f"py{major}-calls"
EVENTS = 1000


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


options = {"basic_auth": (user, password), "request_timeout": 60}
if major == "9":
    # Clients of 9.x ask for a media type that 7.17 does not have.
    options["headers"] = {"Accept": "application/json", "Content-Type": "application/json"}
search = Elasticsearch(f"http://127.0.0.1:{port}", **options)

same(search.info()["version"]["number"], "7.17.29")
mappings = {"properties": {"n": {"type": "long"}, "country": {"type": "keyword"}}}
search.indices.put_index_template(name=INDEX, index_patterns=[INDEX + "*"], template={"mappings": mappings})
assert search.indices.exists_index_template(name=INDEX)
assert not search.indices.exists_index_template(name="nothing")

lines = ({"_index": INDEX, "_id": str(n), "n": n, "country": "NL" if n % 4 else "FR"} for n in range(EVENTS))
same(helpers.bulk(search, lines, chunk_size=300, refresh=True), (EVENTS, []))
same(search.indices.get_mapping(index=INDEX)[INDEX]["mappings"], mappings)
same(search.count(index=INDEX, query={"term": {"country": "FR"}})["count"], EVENTS // 4)

# All of them: with a scroll, in the order of a field too, and with a point in time.
found = [hit["_source"]["n"] for hit in helpers.scan(search, index=INDEX, size=170)]
same(sorted(found), list(range(EVENTS)))
ordered = helpers.scan(search, index=INDEX, query={"sort": [{"n": "desc"}]}, size=170, preserve_order=True)
same([hit["_source"]["n"] for hit in ordered], list(range(EVENTS))[::-1])
pit = search.open_point_in_time(index=INDEX, keep_alive="1m")["id"]
seen, after = [], None
while True:
    page = search.search(pit={"id": pit, "keep_alive": "1m"}, size=300, sort=[{"country": "asc"}], search_after=after)
    if not page["hits"]["hits"]:
        break
    seen += [hit["_source"]["n"] for hit in page["hits"]["hits"]]
    after = page["hits"]["hits"][-1]["sort"]
same(sorted(seen), list(range(EVENTS)))
same(search.close_point_in_time(id=pit)["num_freed"], 1)

several = search.msearch(searches=[{"index": INDEX}, {"query": {"term": {"n": 5}}}, {"index": "nothing"}, {}])
same([answer["status"] for answer in several["responses"]], [200, 404])
same([one["found"] for one in search.mget(index=INDEX, ids=["1", "nothing"])["docs"]], [True, False])
search.indices.put_alias(index=INDEX, name=INDEX + "-alias")
same(search.count(index=INDEX + "-alias")["count"], EVENTS)
try:
    search.get(index=INDEX, id="nothing")
    raise AssertionError("a document that does not exist was found")
except NotFoundError:
    pass

if major == "8":
    from elasticsearch_dsl import Search

    of_france = Search(using=search, index=INDEX).filter("term", country="FR").query("range", n={"lt": 100})
    same(of_france.count(), 25)
    same(sorted(hit.n for hit in of_france.scan()), list(range(0, 100, 4)))
    of_france.aggs.bucket("countries", "terms", field="country")
    answer = of_france.extra(size=3).execute()
    same((len(answer), answer.aggregations.countries.buckets[0].doc_count), (3, 25))
