package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// admin: topics, partitions, settings, offsets and groups with kadm.
func admin(s *scenario) {
	client := s.client(kgo.DefaultProduceTopic("admin"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	admin := kadm.NewClient(client)

	brokers, err := admin.ListBrokers(s.ctx)
	check(err, "list brokers")
	expect(len(brokers), 1, "brokers")

	adminTopics(s, admin)
	adminConfigs(s, admin)
	adminOffsets(s, client, admin)
	adminGroups(s, admin)

	deleted, err := admin.DeleteTopics(s.ctx, "admin", "no-such-topic")
	check(err, "delete topics")
	check(deleted["admin"].Err, "delete topic admin")
	expect(errors.Is(deleted["no-such-topic"].Err, kerr.UnknownTopicOrPartition), true, "a missing topic cannot be deleted")
	s.eventually("the deleted topic is gone", func() bool {
		topics, err := admin.ListTopics(s.ctx)
		check(err, "list topics")
		return !topics.Has("admin")
	})
}

func adminTopics(s *scenario, admin *kadm.Client) {
	retention := "3600000"
	created, err := admin.CreateTopic(s.ctx, 2, 1, map[string]*string{"retention.ms": &retention}, "admin")
	check(err, "create topic")
	expect(created.NumPartitions, 2, "partitions of the new topic")
	_, err = admin.CreateTopic(s.ctx, 2, 1, nil, "admin")
	expect(errors.Is(err, kerr.TopicAlreadyExists), true, "a topic is created once")
	_, err = admin.CreateTopic(s.ctx, 1, 1, nil, "not a name")
	expect(errors.Is(err, kerr.InvalidTopicException), true, "a topic's name is checked")
	_, err = admin.CreateTopic(s.ctx, 1, 2, nil, "two-replicas")
	expect(errors.Is(err, kerr.InvalidReplicationFactor), true, "one broker cannot hold two replicas")

	grown, err := admin.CreatePartitions(s.ctx, 1, "admin")
	check(err, "create partitions")
	check(grown["admin"].Err, "create partitions")
	s.eventually("three partitions", func() bool {
		topics, err := admin.ListTopics(s.ctx, "admin")
		check(err, "list topics")
		return len(topics["admin"].Partitions) == 3 && topics["admin"].Err == nil
	})
}

func adminConfigs(s *scenario, admin *kadm.Client) {
	value := func(key string) (string, string) {
		described, err := admin.DescribeTopicConfigs(s.ctx, "admin")
		check(err, "describe settings")
		resource, err := described.On("admin", nil)
		check(err, "describe settings")
		for _, config := range resource.Configs {
			if config.Key == key {
				return config.MaybeValue(), config.Source.String()
			}
		}
		fail("topic admin has no setting %s", key)
		return "", ""
	}
	retention, source := value("retention.ms")
	expect(retention, "3600000", "retention.ms")
	expect(source, "DYNAMIC_TOPIC_CONFIG", "source of retention.ms")

	bytes := "1000000"
	altered, err := admin.AlterTopicConfigs(s.ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.bytes", Value: &bytes}, {Op: kadm.DeleteConfig, Name: "retention.ms"},
	}, "admin")
	check(err, "alter settings")
	check(altered[0].Err, "alter settings")
	limit, _ := value("retention.bytes")
	expect(limit, "1000000", "retention.bytes")
	retention, source = value("retention.ms")
	expect(retention, "604800000", "retention.ms after its deletion")
	expect(source != "DYNAMIC_TOPIC_CONFIG", true, "retention.ms is no longer the topic's own")

	wrong := "many"
	altered, err = admin.AlterTopicConfigs(s.ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.bytes", Value: &wrong}}, "admin")
	check(err, "alter settings")
	expect(errors.Is(altered[0].Err, kerr.InvalidConfig), true, "a setting's value is checked")
}

func adminOffsets(s *scenario, client *kgo.Client, admin *kadm.Client) {
	base := time.UnixMilli(1_700_000_000_000)
	for i := range 10 {
		record := &kgo.Record{Value: fmt.Appendf(nil, "%d", i), Timestamp: base.Add(time.Duration(i) * time.Second)}
		check(client.ProduceSync(s.ctx, record).FirstErr(), "produce")
	}
	start, err := admin.ListStartOffsets(s.ctx, "admin")
	check(err, "list start offsets")
	end, err := admin.ListEndOffsets(s.ctx, "admin")
	check(err, "list end offsets")
	// Record 4 is the first one at or after the millisecond that follows record 3.
	timed, err := admin.ListOffsetsAfterMilli(s.ctx, base.UnixMilli()+3_001, "admin")
	check(err, "list offsets by time")
	for partition, want := range []struct{ start, end, timed int64 }{{0, 10, 4}, {0, 0, 0}, {0, 0, 0}} {
		what := fmt.Sprintf(" offset of partition %d", partition)
		at := func(listed kadm.ListedOffsets) int64 {
			offset, ok := listed.Lookup("admin", int32(partition))
			expect(ok, true, "there is an"+what)
			check(offset.Err, "list the"+what)
			return offset.Offset
		}
		expect(at(start), want.start, "start"+what)
		expect(at(end), want.end, "end"+what)
		expect(at(timed), want.timed, "timed"+what)
	}
}

func adminGroups(s *scenario, admin *kadm.Client) {
	offsets := kadm.Offsets{}
	offsets.AddOffset("admin", 0, 7, -1)
	committed, err := admin.CommitOffsets(s.ctx, "admin-group", offsets)
	check(err, "commit offsets")
	check(committed.Error(), "commit offsets")
	lags, err := admin.Lag(s.ctx, "admin-group")
	check(err, "lag")
	check(lags.Error(), "lag")
	lag, _ := lags["admin-group"].Lag.Lookup("admin", 0)
	expect(lag.Lag, 3, "lag of partition 0")

	groups, err := admin.ListGroups(s.ctx)
	check(err, "list groups")
	expect(groups["admin-group"].State, "Empty", "state of the group")
	deleted, err := admin.DeleteGroups(s.ctx, "admin-group", "no-such-group")
	check(err, "delete groups")
	check(deleted["admin-group"].Err, "delete group")
	expect(errors.Is(deleted["no-such-group"].Err, kerr.GroupIDNotFound), true, "a missing group cannot be deleted")
	groups, err = admin.ListGroups(s.ctx)
	check(err, "list groups")
	expect(len(groups), 0, "groups")
}
