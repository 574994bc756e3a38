"""What a program that uses elasticsearch-py or opensearch-py does with a server: search_client.py MODULE PORT USER PASSWORD.

Ends with 0 where each answer was as it should be. An index that the other module's run has made is not asked for.
"""

import importlib
import sys
import warnings

module, port, user, password = sys.argv[1:]
client = importlib.import_module(module)
helpers = importlib.import_module(module + ".helpers")
connect = client.Elasticsearch if module == "elasticsearch" else client.OpenSearch
# elasticsearch-py remarks that the server has no security of its own; opensearch-py that it does not check a product.
warnings.simplefilter("ignore")

INDEX = module + "-calls"
NUMBERS = ["+972598294121", "00972598294121", "9011972598294121", "972598294121", "+12025550100"]


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def refused(error, status, call):
    try:
        answer = call()
    except error as refusal:
        same(refusal.status_code, status)
        return refusal
    raise AssertionError(f"{answer!r} where {status} was due")


def event(n):
    return {
        "time": f"2016-04-1{n % 3 + 1} 14:02:07-0300",
        "sipRequest": "INVITE",
        "ipIntruder": f"198.51.100.{n % 10}",
        "destNum": NUMBERS[n % len(NUMBERS)],
        "userAgent": "friendly-scanner" if n % 2 else "sipcli/v1.8",
        "country": "NL" if n % 4 else "FR",
        "attempts": n,
    }


def ids(answer):
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def talk(search):
    same(search.info()["version"]["number"], "7.17.29")
    assert search.ping()

    # A mapping of its own, and dynamic fields beside it.
    properties = {"time": {"type": "date", "format": "yyyy-MM-dd HH:mm:ssZ"}, "country": {"type": "keyword"}}
    made = search.indices.create(index=INDEX, body={"mappings": {"properties": properties}})
    same(made["acknowledged"], True)
    same(refused(client.RequestError, 400, lambda: search.indices.create(index=INDEX)).error, "resource_already_exists_exception")
    assert search.indices.exists(index=INDEX) and not search.indices.exists(index="nothing")

    # One by one.
    same(search.index(index=INDEX, id="a/1", body=event(0))["result"], "created")
    same(search.index(index=INDEX, id="a/1", body=event(0))["result"], "updated")
    search.create(index=INDEX, id="1", body=event(1))
    refused(client.ConflictError, 409, lambda: search.create(index=INDEX, id="1", body=event(1)))
    made = search.index(index=INDEX, body=event(2), refresh=True)
    same(search.get(index=INDEX, id=made["_id"])["_source"], event(2))
    same(search.get(index=INDEX, id="a/1", _source_includes=["country"])["_source"], {"country": "FR"})
    same(search.get_source(index=INDEX, id="1"), event(1))
    assert search.exists(index=INDEX, id="a/1") and not search.exists(index=INDEX, id="2")
    refused(client.NotFoundError, 404, lambda: search.get(index=INDEX, id="2"))
    refused(client.RequestError, 400, lambda: search.index(index=INDEX, id="2", body={"time": "yesterday"}))

    # Many.
    lines = ({"_op_type": "create", "_index": INDEX, "_id": n, "_source": event(n)} for n in range(3, 1000))
    same(helpers.bulk(search, lines, chunk_size=200, refresh=True), (997, []))
    again = [{"_op_type": "create", "_index": INDEX, "_id": n, **event(n)} for n in (3, 1000)]
    done, errors = helpers.bulk(search, again, raise_on_error=False)
    same((done, [error["create"]["status"] for error in errors]), (1, [409]))
    try:
        helpers.bulk(search, [{"_index": INDEX, "_id": "x", "attempts": "many"}])
        raise AssertionError("a text was taken as a number")
    except helpers.BulkIndexError as error:
        same(error.errors[0]["index"]["error"]["type"], "mapper_parsing_exception")
    parallel = ({"_index": INDEX + "-more", **event(n)} for n in range(1000))
    same(sum(ok for ok, _ in helpers.parallel_bulk(search, parallel, thread_count=4, chunk_size=50)), 1000)
    search.indices.refresh(index=INDEX + "*")

    # Counts.
    same(search.count(index=INDEX)["count"], 1001)
    same(search.count(index=INDEX + "*")["count"], 2001)
    same(search.count(index=INDEX, q="destNum:9011972598294121")["count"], 801)
    same(search.count(index=INDEX, q='destNum.keyword:"9011972598294121"')["count"], 200)
    same(search.count(index=INDEX, body={"query": {"term": {"country": "FR"}}})["count"], 251)
    refused(client.NotFoundError, 404, lambda: search.count(index="nothing"))
    refused(client.RequestError, 400, lambda: search.count(index=INDEX, q="destNum:(1"))

    # Questions.
    found = search.search(index=INDEX, q="972598294121 AND attempts:[10 TO 13]", params={"sort": "attempts:desc"})
    same((found["hits"]["total"], ids(found)), ({"value": 4, "relation": "eq"}, ["13", "12", "11", "10"]))
    query = {
        "bool": {
            "must": [{"match": {"userAgent": "scanner"}}, {"match_phrase": {"userAgent": "friendly scanner"}}],
            "must_not": [{"terms": {"ipIntruder.keyword": ["198.51.100.1", "198.51.100.3"]}}],
            "filter": [
                {"range": {"attempts": {"gte": 900, "lt": 910}}},
                {"exists": {"field": "country"}},
                {"prefix": {"destNum.keyword": "00"}},
            ],
        }
    }
    same(ids(search.search(index=INDEX, body={"query": query})), [])
    query["bool"]["filter"].pop()
    body = {"query": query, "sort": [{"attempts": "asc"}], "from": 1, "size": 1, "_source": ["attempts"]}
    found = search.search(index=INDEX, body=body)
    same([hit["_source"] for hit in found["hits"]["hits"]], [{"attempts": 907}])
    same(found["hits"]["total"]["value"], 3)
    same(search.search(index=INDEX, body={"query": {"ids": {"values": ["7", "nothing"]}}})["hits"]["hits"][0]["_source"], event(7))
    refused(client.RequestError, 400, lambda: search.search(index=INDEX, body={"query": {"percolate": {"field": "query", "document": {}}}}))

    # All of them, page by page, as scan() did before there was search_after.
    body = {"size": 300, "sort": [{"attempts": "asc"}], "_source": False}
    seen = []
    while hits := search.search(index=INDEX, body=body)["hits"]["hits"]:
        seen += [hit["sort"][0] for hit in hits]
        body["search_after"] = hits[-1]["sort"]
    same(seen, list(range(1001)))
    # With a scroll, in the order of storing and in that of a field.
    scanned = [hit["_source"]["attempts"] for hit in helpers.scan(search, index=INDEX, size=170)]
    same(sorted(scanned), list(range(1001)))
    query = {"query": {"range": {"attempts": {"lt": 500}}}, "sort": [{"attempts": "desc"}]}
    ordered = helpers.scan(search, index=INDEX, query=query, size=170, preserve_order=True)
    same([hit["_source"]["attempts"] for hit in ordered], list(range(500))[::-1])
    several = search.msearch(body=[{"index": INDEX}, {"query": {"term": {"attempts": 7}}}, {"index": "nothing"}, {}])
    same([answer["status"] for answer in several["responses"]], [200, 404])
    same([one["found"] for one in search.mget(index=INDEX, body={"ids": ["7", "nothing"]})["docs"]], [True, False])

    # Templates and aliases.
    template = {"index_patterns": [INDEX + "-made*"], "mappings": {"properties": {"code": {"type": "keyword"}}}}
    assert not search.indices.exists_template(name=INDEX)
    search.indices.put_template(name=INDEX, body=template)
    assert search.indices.exists_template(name=INDEX)
    search.index(index=INDEX + "-made", id="1", body={"code": 486})
    same(search.indices.get_mapping(index=INDEX + "-made")[INDEX + "-made"]["mappings"]["properties"], {"code": {"type": "keyword"}})
    search.indices.put_alias(index=INDEX, name=INDEX + "-alias")
    same(search.count(index=INDEX + "-alias")["count"], 1001)
    assert not search.indices.exists_alias(name="nothing")

    # Sums.
    days = {"date_histogram": {"field": "time", "calendar_interval": "day"}}
    countries = {"terms": {"field": "country", "size": 2}, "aggs": {"days": days}}
    sums = search.search(index=INDEX, body={"size": 0, "aggs": {"countries": countries, "days": days}})["aggregations"]
    same([(bucket["key"], bucket["doc_count"]) for bucket in sums["countries"]["buckets"]], [("NL", 750), ("FR", 251)])
    by_day = [(bucket["key_as_string"], bucket["doc_count"]) for bucket in sums["days"]["buckets"]]
    same(by_day, [(f"2016-04-1{day} 00:00:00+0000", sum(n % 3 == day - 1 for n in range(1001))) for day in (1, 2, 3)])
    same(sum(bucket["doc_count"] for bucket in sums["countries"]["buckets"][1]["days"]["buckets"]), 251)
    unknown = {"size": 0, "aggs": {"a": {"nothing": {"field": "attempts"}}}}
    refused(client.RequestError, 400, lambda: search.search(index=INDEX, body=unknown))

    # What there is.
    same(search.indices.get_mapping(index=INDEX)[INDEX]["mappings"]["properties"]["country"], {"type": "keyword"})
    same(search.cluster.health()["status"] in ("green", "yellow"), True)
    listed = search.cat.indices(index=INDEX, params={"format": "json"})
    same([(line["index"], line["docs.count"]) for line in listed], [(INDEX, "1001")])
    # Events stay.
    refused(client.TransportError, 400, lambda: search.delete(index=INDEX, id="1"))
    refused(client.TransportError, 400, lambda: search.indices.delete(index=INDEX))


def connected(password, **options):
    return connect([{"host": "127.0.0.1", "port": int(port)}], http_auth=(user, password), timeout=60, **options)


refused(client.AuthenticationException, 401, lambda: connected("wrong").count())
talk(connected(password, http_compress=True))
# The same without gzip, on the index of the other run.
same(connected(password).count(index=INDEX)["count"], 1001)
