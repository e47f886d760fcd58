/* Plans in messages, and contact sheets. */
#include "../tap.h"

#include "image/sheet.h"
#include "train/planning.h"
#include "util/err.h"

#include <stdlib.h>
#include <string.h>

static void plans(void)
{
    PlanningOptions o = PLANNING_DEFAULTS;
    Recipe r;
    ViewCounts c;
    ViewPlan made[PLAN_MAX_VIEWS], read[PLAN_MAX_VIEWS];
    Message m, w;
    int different = 0;
    o.locals = 3;
    o.global_size = 32;
    ok(!planning_recipe(&o, &r) && r.locals == 3 && r.global_size == 32 && r.local_size == 96, "options change a recipe");
    message_init(&w, MSG_WELCOME);
    ok(!planning_describe(&w, "hssl-multicrop", &o, &r) && !planning_counts(&w, &c) && c.globals == 2 &&
           c.locals == 3 && c.local_size == 96,
       "a welcome tells of the views");
    message_clear(&w);
    ok(planning_counts(&w, &c) == -1, "a welcome without them is refused: %s", err_text());
    for (uint64_t id = 0; id < 200; id++) {
        message_init(&m, MSG_DATA);
        m.id = id;
        m.epoch = id % 3;
        m.width = 1 + (uint32_t)id * 3;
        m.height = 500 - (uint32_t)id;
        memset(made, 0, sizeof made);
        memset(read, 0, sizeof read);
        planning_views(&m, &r, 5, made);
        if (planning_attach(&m, made, 5) || planning_read(&m, &(ViewCounts){ 2, 3, 32, 96 }, read))
            different++;
        for (int v = 0; v < 5; v++)
            different += memcmp(&made[v], &read[v], sizeof *made) != 0 ||
                         plan_check(&read[v], (int)m.width, (int)m.height);
        message_clear(&m);
    }
    is_int(different, 0, "plans pass through messages unchanged");

    message_init(&m, MSG_DATA);
    m.width = m.height = 100;
    planning_views(&m, &r, 5, made);
    planning_attach(&m, made, 5);
    c = (ViewCounts){ 2, 3, 32, 96 };
    for (int i = 0; i < 15; i++) {
        double kept = m.plan[i];
        m.plan[i] = -1;
        different += planning_read(&m, &c, read) != -1;
        m.plan[i] = 0.5;
        different += planning_read(&m, &c, read) != -1;
        m.plan[i] = 1e18;
        different += planning_read(&m, &c, read) != -1;
        m.plan[i] = kept;
    }
    is_int(different, 0, "numbers out of range are refused");
    c.locals = 4;
    ok(planning_read(&m, &c, read) == -1, "a plan of another number of views: %s", err_text());
    c = (ViewCounts){ 2, 3, 64, 96 };
    ok(planning_read(&m, &c, read) == -1, "a plan of another size: %s", err_text());
    message_clear(&m);
}

static void sheets(void)
{
    int w, h;
    uint8_t *big = malloc(256 * 256 * 3), *small = malloc(64 * 64 * 3), *drawn;
    memset(big, 10, 256 * 256 * 3);
    memset(small, 20, 64 * 64 * 3);
    Sheet *s = sheet_new(128);
    for (int r = 0; r < 2; r++) {
        sheet_row(s);
        sheet_tile(s, big, 256);
        sheet_tile(s, small, 64);
    }
    drawn = sheet_draw(s, &w, &h);
    ok(drawn && w == 4 + 128 + 4 + 32 + 4 && h == 4 + 128 + 4 + 128 + 4, "a sheet's size: %d x %d", w, h);
    if (drawn) {
        is_int(drawn[0], 255, "a white margin");
        is_int(drawn[(4 * w + 4) * 3], 10, "the large view");
        is_int(drawn[(4 * w + 136) * 3], 20, "the small one beside it");
        is_int(drawn[((4 + 32) * w + 136) * 3], 255, "in proportion");
        is_int(drawn[((4 + 128 + 4 + 127) * w + 131) * 3], 10, "the second row's last pixel");
    }
    free(drawn);
    sheet_free(&s);
    s = sheet_new(128);
    drawn = sheet_draw(s, &w, &h);
    ok(drawn && sheet_rows(s) == 0, "an empty sheet");
    free(drawn);
    sheet_free(&s);
    sheet_free(&s);
    free(big);
    free(small);
}

int main(void)
{
    plans();
    sheets();
    return tap_done();
}
