// Command search_clients does with a server what programs do that use the clients of Go:
// search_clients olivere|elastic PORT USER PASSWORD. Ends with 0 if each answer was as it should be.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	elastic8 "github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"
	"github.com/olivere/elastic/v7"
)

const events = 300

const patience = 2 * time.Minute

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func same(found, expected any) {
	if found != expected {
		log.Fatalf("%v is not %v", found, expected)
	}
}

func event(n int) map[string]any {
	return map[string]any{"destNum": fmt.Sprintf("+44770090%04d", n), "n": n}
}

// talkOlivere uses the default settings: the client looks for nodes and checks their health. Only its timeouts are
// longer, because the first password takes a while on a busy machine.
func talkOlivere(url, user, password string) {
	ctx := context.Background()
	client, err := elastic.NewClient(elastic.SetURL(url), elastic.SetBasicAuth(user, password),
		elastic.SetHealthcheckTimeoutStartup(patience), elastic.SetHealthcheckTimeout(patience),
		elastic.SetSnifferTimeoutStartup(patience), elastic.SetSnifferTimeout(patience))
	check(err)
	version, err := client.ElasticsearchVersion(url)
	check(err)
	same(version, "7.17.29")
	exists, err := client.IndexExists("olivere").Do(ctx)
	check(err)
	same(exists, false)
	mapping := `{"settings":{"number_of_shards":1},"mappings":{"properties":{"n":{"type":"long"}}}}`
	_, err = client.CreateIndex("olivere").BodyString(mapping).Do(ctx)
	check(err)
	bulk := client.Bulk()
	for n := 0; n < events; n++ {
		bulk.Add(elastic.NewBulkIndexRequest().Index("olivere").Id(fmt.Sprint(n)).Doc(event(n)))
	}
	done, err := bulk.Refresh("true").Do(ctx)
	check(err)
	same(len(done.Succeeded()), events)
	found, err := client.Search("olivere").Query(elastic.NewRangeQuery("n").Gte(290)).Sort("n", false).Size(3).Do(ctx)
	check(err)
	same(found.TotalHits(), int64(10))
	same(found.Hits.Hits[0].Id, "299")
	scroll := client.Scroll("olivere").Size(70)
	total := 0
	for {
		page, err := scroll.Do(ctx)
		if err == io.EOF {
			break
		}
		check(err)
		total += len(page.Hits.Hits)
	}
	same(total, events)
	check(scroll.Clear(ctx))
	several, err := client.MultiSearch().Add(elastic.NewSearchRequest().Index("olivere").Query(elastic.NewTermQuery("n", 7))).Do(ctx)
	check(err)
	same(several.Responses[0].TotalHits(), int64(1))
	client.Stop()
}

func talkElastic(url, user, password string) {
	client, err := elastic8.NewClient(elastic8.Config{Addresses: []string{url}, Username: user, Password: password})
	check(err)
	info, err := client.Info()
	check(err)
	same(info.StatusCode, 200)
	info.Body.Close()
	indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{Client: client, Index: "goelastic", NumWorkers: 2})
	check(err)
	for n := 0; n < events; n++ {
		body, err := json.Marshal(event(n))
		check(err)
		item := esutil.BulkIndexerItem{Action: "index", DocumentID: fmt.Sprint(n), Body: bytes.NewReader(body)}
		check(indexer.Add(context.Background(), item))
	}
	check(indexer.Close(context.Background()))
	same(indexer.Stats().NumFlushed, uint64(events))
	refreshed, err := client.Indices.Refresh(client.Indices.Refresh.WithIndex("goelastic"))
	check(err)
	refreshed.Body.Close()
	query := strings.NewReader(`{"query":{"range":{"n":{"lt":5}}}}`)
	found, err := client.Search(client.Search.WithIndex("goelastic"), client.Search.WithBody(query), client.Search.WithSort("n:asc"))
	check(err)
	defer found.Body.Close()
	same(found.StatusCode, 200)
	var answer struct {
		Hits struct{ Total struct{ Value int } }
	}
	check(json.NewDecoder(found.Body).Decode(&answer))
	same(answer.Hits.Total.Value, 5)
	exists, err := client.Indices.ExistsIndexTemplate("nothing")
	check(err)
	same(exists.StatusCode, 404)
}

func main() {
	url := "http://127.0.0.1:" + os.Args[2]
	if os.Args[1] == "olivere" {
		talkOlivere(url, os.Args[3], os.Args[4])
	} else {
		talkElastic(url, os.Args[3], os.Args[4])
	}
}
