// Command franz tests that unmodified franz-go works with a broker: franz BOOTSTRAP SCENARIO.
// Each scenario checks its results and ends with a non-zero status if any differs. The test that runs this program starts
// and stops the broker and reads its log.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// limit is the longest duration of a scenario on a busy machine.
const limit = 2 * time.Minute

var scenarios = map[string]func(*scenario){
	"roundtrip":    roundtrip,
	"codecs":       codecs,
	"group":        group,
	"admin":        admin,
	"load":         load,
	"transactions": transactions,
}

func main() {
	if len(os.Args) != 3 || scenarios[os.Args[2]] == nil {
		fmt.Fprintln(os.Stderr, "usage: franz BOOTSTRAP roundtrip|codecs|group|admin|load|transactions")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	scenarios[os.Args[2]](&scenario{ctx: ctx, bootstrap: os.Args[1]})
}

// scenario holds the tools of every scenario.
type scenario struct {
	ctx       context.Context
	bootstrap string
}

// fail ends the program: the first difference is the result.
func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

func check(err error, doing string) {
	if err != nil {
		fail("%s: %v", doing, err)
	}
}

func expect[T comparable](got, want T, what string) {
	if got != want {
		fail("%s: got %v, want %v", what, got, want)
	}
}

func (s *scenario) client(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(s.bootstrap, ",")...)}, options...)...)
	check(err, "create a client")
	return client
}

func (s *scenario) createTopic(name string, partitions int32) {
	client := s.client()
	defer client.Close()
	created, err := kadm.NewClient(client).CreateTopic(s.ctx, partitions, 1, nil, name)
	check(err, "create topic "+name)
	check(created.Err, "create topic "+name)
}

// readAll returns the first `count` records of a topic.
func (s *scenario) readAll(topic string, count int) []*kgo.Record {
	consumer := s.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	var records []*kgo.Record
	for len(records) < count {
		fetches := consumer.PollFetches(s.ctx)
		check(fetches.Err(), "fetch "+topic)
		records = append(records, fetches.Records()...)
	}
	expect(len(records), count, "records of "+topic)
	return records
}
