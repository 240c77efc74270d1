set terminal svg size 1240,780 dynamic font 'sans,13' background 'white'
set output 'frontier.svg'
set multiplot layout 2,2 title 'opt-small, 50 % sparsity, groups of 64, calibrated on wikitext2.calib.txt' noenhanced
set logscale y
unset mytics
set grid back lc rgb '#dddddd'
set key outside right top vertical noenhanced samplen 1.5
set xlabel 'stored bits per weight'
set format y '%g'
$data_0_0 << EOD
2.897594876 48.80977174
3.395448473 47.98678394
EOD
$data_0_1 << EOD
2.89761183 49.54440574
3.395602756 48.8137468
EOD
$data_0_2 << EOD
2.931615194 49.67896529
3.445677016 48.69397138
EOD
$data_0_3 << EOD
2.911800808 48.71660893
3.406182183 47.91048936
EOD
$data_0_4 << EOD
2.913350423 48.59373927
3.414304945 47.8597105
EOD
$data_1_0 << EOD
2.897594876 65.58811017
3.395448473 64.41531726
EOD
$data_1_1 << EOD
2.89761183 66.26257204
3.395602756 64.56759142
EOD
$data_1_2 << EOD
2.931615194 68.28852935
3.445677016 66.28817258
EOD
$data_1_3 << EOD
2.911800808 65.66862878
3.406182183 64.53007616
EOD
$data_1_4 << EOD
2.913350423 65.51994909
3.414304945 64.11675924
EOD
$data_2_0 << EOD
2.897594876 251.3319334
3.395448473 242.6505329
EOD
$data_2_1 << EOD
2.89761183 255.9442089
3.395602756 246.1733212
EOD
$data_2_2 << EOD
2.931615194 244.1419593
3.445677016 244.939403
EOD
$data_2_3 << EOD
2.911800808 248.2106709
3.406182183 241.3376544
EOD
$data_2_4 << EOD
2.913350423 245.2204891
3.414304945 241.6161585
EOD
$data_3_0 << EOD
2.897594876 0.1382258265
3.395448473 0.1015044436
EOD
$data_3_1 << EOD
2.89761183 0.1953354538
3.395602756 0.1532162923
EOD
$data_3_2 << EOD
2.931615194 0.2080180133
3.445677016 0.1598408887
EOD
$data_3_3 << EOD
2.911800808 0.133573394
3.406182183 0.1027550775
EOD
$data_3_4 << EOD
2.913350423 0.1320683879
3.414304945 0.09998297488
EOD
set yrange [45.34848649:51.16933425]
set ytics (50)
set ylabel 'perplexity on wikitext2' noenhanced
plot $data_0_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_0_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#984ea3' title 'greedy', $data_0_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_0_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_0_4 with linespoints lw 2 pt 13 ps 0.7 lc rgb '#33a02c' title 'budget-model', 46.70894108 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [59.257864:70.33718523]
set ytics (60, 65, 70)
set ylabel 'perplexity on ptb' noenhanced
plot $data_1_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_1_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#984ea3' title 'greedy', $data_1_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_1_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_1_4 with linespoints lw 2 pt 13 ps 0.7 lc rgb '#33a02c' title 'budget-model', 61.03559992 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [216.8578475:263.6225352]
set ytics (250)
set ylabel 'perplexity on c4' noenhanced
plot $data_2_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_2_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#984ea3' title 'greedy', $data_2_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_2_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_2_4 with linespoints lw 2 pt 13 ps 0.7 lc rgb '#33a02c' title 'budget-model', 223.363583 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [0.0970708494:0.2142585537]
set ytics (0.1, 0.15, 0.2)
set ylabel 'KL from dense, nats per token' noenhanced
plot $data_3_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_3_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#984ea3' title 'greedy', $data_3_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_3_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_3_4 with linespoints lw 2 pt 13 ps 0.7 lc rgb '#33a02c' title 'budget-model'
unset multiplot
