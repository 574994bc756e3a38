// What a program that uses the high-level REST client of Elasticsearch 7 does with a server: SearchClient PORT USER
// PASSWORD. Ends with 0 if each answer was as it should be.
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.apache.http.HttpHost;
import org.apache.http.auth.AuthScope;
import org.apache.http.auth.UsernamePasswordCredentials;
import org.apache.http.impl.client.BasicCredentialsProvider;
import org.elasticsearch.action.admin.indices.refresh.RefreshRequest;
import org.elasticsearch.action.bulk.BackoffPolicy;
import org.elasticsearch.action.bulk.BulkProcessor;
import org.elasticsearch.action.bulk.BulkRequest;
import org.elasticsearch.action.bulk.BulkResponse;
import org.elasticsearch.action.fieldcaps.FieldCapabilitiesRequest;
import org.elasticsearch.action.get.GetRequest;
import org.elasticsearch.action.get.MultiGetRequest;
import org.elasticsearch.action.index.IndexRequest;
import org.elasticsearch.action.search.ClearScrollRequest;
import org.elasticsearch.action.search.MultiSearchRequest;
import org.elasticsearch.action.search.SearchRequest;
import org.elasticsearch.action.search.SearchScrollRequest;
import org.elasticsearch.client.RequestOptions;
import org.elasticsearch.client.RestClient;
import org.elasticsearch.client.RestHighLevelClient;
import org.elasticsearch.client.core.CountRequest;
import org.elasticsearch.client.indices.CreateIndexRequest;
import org.elasticsearch.client.indices.GetIndexRequest;
import org.elasticsearch.client.indices.PutMappingRequest;
import org.elasticsearch.core.TimeValue;
import org.elasticsearch.index.query.QueryBuilders;
import org.elasticsearch.search.SearchHit;
import org.elasticsearch.search.aggregations.AggregationBuilders;
import org.elasticsearch.search.aggregations.bucket.histogram.DateHistogramInterval;
import org.elasticsearch.search.aggregations.bucket.histogram.Histogram;
import org.elasticsearch.search.aggregations.bucket.terms.Terms;
import org.elasticsearch.search.aggregations.metrics.Max;
import org.elasticsearch.search.builder.SearchSourceBuilder;
import org.elasticsearch.search.sort.SortOrder;
import org.elasticsearch.xcontent.XContentType;

public class SearchClient {
    static final int EVENTS = 300;
    static final String INDEX = "java-calls";

    static void same(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(found + " is not " + expected);
        }
    }

    static Map<String, Object> event(int n) {
        String time = String.format("2026-11-30T%02d:%02d:00Z", n / 60, n % 60);
        return Map.of("@timestamp", time, "destNum", String.format("+44770090%04d", n % 7), "n", n);
    }

    static class Failures implements BulkProcessor.Listener {
        final List<String> seen = new ArrayList<>();

        public void beforeBulk(long id, BulkRequest request) {}

        public synchronized void afterBulk(long id, BulkRequest request, BulkResponse response) {
            if (response.hasFailures()) {
                seen.add(response.buildFailureMessage());
            }
        }

        public synchronized void afterBulk(long id, BulkRequest request, Throwable failure) {
            seen.add(failure.toString());
        }
    }

    static void load(RestHighLevelClient client) throws Exception {
        CreateIndexRequest create = new CreateIndexRequest(INDEX);
        create.mapping("{\"properties\":{\"@timestamp\":{\"type\":\"date\"},\"n\":{\"type\":\"integer\"}}}", XContentType.JSON);
        same(client.indices().exists(new GetIndexRequest(INDEX), RequestOptions.DEFAULT), false);
        same(client.indices().create(create, RequestOptions.DEFAULT).isAcknowledged(), true);
        same(client.indices().exists(new GetIndexRequest(INDEX), RequestOptions.DEFAULT), true);
        PutMappingRequest more = new PutMappingRequest(INDEX);
        more.source("{\"properties\":{\"destNum\":{\"type\":\"keyword\"}}}", XContentType.JSON);
        same(client.indices().putMapping(more, RequestOptions.DEFAULT).isAcknowledged(), true);
        Failures failures = new Failures();
        BulkProcessor.Builder builder = BulkProcessor.builder(
            (request, listener) -> client.bulkAsync(request, RequestOptions.DEFAULT, listener), failures, "loader");
        BulkProcessor processor = builder.setBulkActions(70).setConcurrentRequests(2)
            .setBackoffPolicy(BackoffPolicy.noBackoff()).build();
        for (int n = 0; n < EVENTS; n++) {
            processor.add(new IndexRequest(INDEX).id(String.valueOf(n)).source(event(n)));
        }
        same(processor.awaitClose(5, TimeUnit.MINUTES), true);
        same(failures.seen, List.of());
        same(client.indices().refresh(new RefreshRequest(INDEX), RequestOptions.DEFAULT).getFailedShards(), 0);
    }

    static SearchRequest search(SearchSourceBuilder source) {
        return new SearchRequest(INDEX).source(source);
    }

    static void find(RestHighLevelClient client) throws Exception {
        same(client.count(new CountRequest(INDEX), RequestOptions.DEFAULT).getCount(), (long) EVENTS);
        SearchSourceBuilder source = new SearchSourceBuilder().size(3).sort("n", SortOrder.DESC)
            .query(QueryBuilders.boolQuery().filter(QueryBuilders.rangeQuery("n").gte(290)))
            .aggregation(AggregationBuilders.terms("numbers").field("destNum")
                .subAggregation(AggregationBuilders.max("last").field("n")))
            .aggregation(AggregationBuilders.dateHistogram("hours").field("@timestamp")
                .fixedInterval(DateHistogramInterval.HOUR));
        var found = client.search(search(source), RequestOptions.DEFAULT);
        same(found.getHits().getTotalHits().value, 10L);
        same(found.getHits().getAt(0).getId(), "299");
        same(found.getHits().getAt(0).getSourceAsMap().get("destNum"), "+447700900005");
        Terms numbers = found.getAggregations().get("numbers");
        same(numbers.getBuckets().size(), 7);
        same(numbers.getBucketByKey("+447700900005").getDocCount(), 2L);
        Max last = numbers.getBucketByKey("+447700900005").getAggregations().get("last");
        same(last.getValue(), 299.0);
        Histogram hours = found.getAggregations().get("hours");
        same(hours.getBuckets().get(0).getKeyAsString(), "2026-11-30T04:00:00.000Z");
        MultiSearchRequest several = new MultiSearchRequest();
        several.add(search(new SearchSourceBuilder().query(QueryBuilders.termQuery("n", 7))));
        several.add(search(new SearchSourceBuilder().query(QueryBuilders.termQuery("n", -1))));
        var answers = client.msearch(several, RequestOptions.DEFAULT).getResponses();
        same(answers[0].getResponse().getHits().getTotalHits().value, 1L);
        same(answers[1].getResponse().getHits().getTotalHits().value, 0L);
    }

    static void read(RestHighLevelClient client) throws Exception {
        TreeSet<Integer> seen = new TreeSet<>();
        TimeValue kept = TimeValue.timeValueMinutes(5);
        var page = client.search(search(new SearchSourceBuilder().size(80)).scroll(kept), RequestOptions.DEFAULT);
        while (page.getHits().getHits().length > 0) {
            for (SearchHit hit : page.getHits()) {
                seen.add((Integer) hit.getSourceAsMap().get("n"));
            }
            page = client.scroll(new SearchScrollRequest(page.getScrollId()).scroll(kept), RequestOptions.DEFAULT);
        }
        ClearScrollRequest done = new ClearScrollRequest();
        done.addScrollId(page.getScrollId());
        same(client.clearScroll(done, RequestOptions.DEFAULT).isSucceeded(), true);
        same(seen.size(), EVENTS);
        same(client.get(new GetRequest(INDEX, "7"), RequestOptions.DEFAULT).getSourceAsMap().get("n"), 7);
        same(client.get(new GetRequest(INDEX, "none"), RequestOptions.DEFAULT).isExists(), false);
        MultiGetRequest two = new MultiGetRequest().add(INDEX, "8").add(INDEX, "none");
        same(client.mget(two, RequestOptions.DEFAULT).getResponses()[1].getResponse().isExists(), false);
        var caps = client.fieldCaps(new FieldCapabilitiesRequest().indices(INDEX).fields("*"), RequestOptions.DEFAULT);
        same(caps.getField("destNum").get("keyword").isAggregatable(), true);
    }

    public static void main(String[] arguments) throws Exception {
        HttpHost host = new HttpHost("127.0.0.1", Integer.parseInt(arguments[0]), "http");
        BasicCredentialsProvider credentials = new BasicCredentialsProvider();
        credentials.setCredentials(AuthScope.ANY, new UsernamePasswordCredentials(arguments[1], arguments[2]));
        var builder = RestClient.builder(host)
            .setHttpClientConfigCallback(http -> http.setDefaultCredentialsProvider(credentials))
            .setRequestConfigCallback(config -> config.setSocketTimeout(300_000));
        try (RestHighLevelClient client = new RestHighLevelClient(builder)) {
            same(client.info(RequestOptions.DEFAULT).getVersion().getNumber(), "7.17.29");
            load(client);
            find(client);
            read(client);
        }
    }
}
